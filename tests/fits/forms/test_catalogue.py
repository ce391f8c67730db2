import numpy as np
import pytest

from fits.forms import catalogue, loss
from fits.forms.law import UNITS, Law, unit
from ground import InputError
from tests.fits import runs

FORMS = [form for form in loss.LAWS]


def point(
    form: type[Law], rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Moderate parameters [3, 1] and columns [7] near 1, where finite differences are accurate."""
    p = {q.name: rng.uniform(max(q.low, 0.3), min(q.high, 0.9), (3, 1)) for q in form.parameters}
    x = {c: np.exp(rng.normal(0.5, 0.4, 7)) for c in form.inputs}
    return p, form.search_columns(x, dict.fromkeys(form.inputs, 2.0))


def moved(form: type[Law], p: dict[str, np.ndarray], i: int, step: float) -> dict[str, np.ndarray]:
    q = form.parameters[i]
    return {**p, q.name: p[q.name] * np.exp(step) if q.scale == "log" else p[q.name] + step}


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_first_derivatives_equal_finite_differences(form: type[Law]) -> None:
    p, x = point(form, np.random.default_rng(1))
    level, slopes = form.jet(p, x)
    np.testing.assert_allclose(level, form.search_predict(p, x), rtol=1e-13)
    for i in range(len(form.parameters)):
        ends = [form.search_predict(moved(form, p, i, step), x) for step in (1e-6, -1e-6)]
        np.testing.assert_allclose(slopes[:, i], (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_second_derivatives_equal_differences_of_the_first(form: type[Law]) -> None:
    rng = np.random.default_rng(2)
    p, x = point(form, rng)
    weight = rng.normal(size=(3, 7))
    hessian = form.curvature(p, x, weight)
    for i in range(len(form.parameters)):
        ends = [form.jet(moved(form, p, i, step), x)[1] for step in (1e-4, -1e-4)]
        expected = np.einsum("rn,rkn->rk", weight, (ends[0] - ends[1]) / 2e-4)
        np.testing.assert_allclose(
            hessian[:, i], expected, rtol=1e-5, atol=1e-5 * np.abs(hessian).max()
        )


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_search_coordinates_predict_the_same_and_lead_back(form: type[Law]) -> None:
    p, x = point(form, np.random.default_rng(3))
    center = {
        c: float(np.exp(np.log(v).mean())) if c in form.centered() else 1.0 for c, v in x.items()
    }
    s = form.to_search(p, center)
    scaled = form.search_columns({c: v / center[c] for c, v in x.items()}, center)
    np.testing.assert_allclose(form.search_predict(s, scaled), form.predict(p, x), rtol=1e-12)
    for name, value in form.from_search(s, center).items():
        np.testing.assert_allclose(value, p[name], rtol=1e-12)


def test_every_law_is_complete_and_its_name_is_its_own() -> None:
    forms = [form for family in catalogue.FAMILIES for form in family.LAWS]
    assert len({form.name for form in forms}) == len(forms)
    for form in forms:
        assert form.formula and form.citation and form.inputs and form.parameters, form.name
        assert all(unit(form, c) for c in form.inputs if c in UNITS)
        assert all(q.low < q.high for q in form.parameters)


def test_law_finds_by_name_and_refuses_an_unknown_one_with_the_names() -> None:
    assert catalogue.law("chinchilla") is loss.Chinchilla
    with pytest.raises(
        InputError, match=r"law='chinchila': must be one of chinchilla, .*kaplan-nd"
    ):
        catalogue.law("chinchila")


def test_predict_broadcasts_replicates_against_columns() -> None:
    p = {name: np.full((4, 1), value) for name, value in runs.EPOCH.items()}
    x = {"params": np.array([1e9, 7e10]), "tokens": np.array([2e10, 1.4e12])}
    assert loss.Chinchilla.predict(p, x).shape == (4, 2)
    assert loss.Chinchilla.predict(runs.EPOCH, x).shape == (2,)
