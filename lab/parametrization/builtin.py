"""The built-in tables, each as its paper prints it, relative to a base shape.

Constants: at the base shape every table with a base is fan-in SP, number for number: hidden and readout std 1/sqrt(fan_in), embedding std 1
(a one-hot input has fan-in 1), each times the trial's init_std. eps follows the size of the stored tensor's gradient.
"""

from typing import Any

from lab.parametrization.table import Table, from_data

SP_STD = {"input": "init_std", "hidden": "init_std fan_in^-1/2", "output": "init_std fan_in^-1/2"}
BASE_OUT_STD = "init_std fan_in^-1/2 in_ratio^1/2"  # the base model's readout std at every width
MUP_HEADS = "alpha_attn head_dim^-1/2 head_ratio^-1/2"  # sqrt(base_head_dim) / head_dim


def _gains(**updates: Any) -> dict[str, Any]:
    """A gains row: start at 1, never decay (as in the reference code of 2505.01618)."""
    columns = {family: update if isinstance(update, dict) else {"lr": update} for family, update in updates.items()}
    no_decay = {family: {**column, "weight_decay": "0", "coupled": "0"} for family, column in columns.items()}
    return {"std": "0", "multiplier": "1", **no_decay}


def _sp(name: str, source: str, std: dict[str, str], tied: str) -> dict[str, Any]:
    """One LR for every tensor and every optimizer: the definition of standard parametrization."""
    one = {"lr": "1", "coupled": "1"}
    updates = {"adam": one, "sgd": one, "muon": one, "prodigy": one}
    multiplier = {"input": "alpha_embed", "hidden": "1", "output": "alpha_out"}
    rows = {role: {"std": std[role], "multiplier": multiplier[role], **updates} for role in std}
    gains = _gains(**updates)
    return {
        "name": name,
        "source": source,
        "attention": "alpha_attn head_dim^-1/2",
        "tied": tied,
        "rows": {**rows, "gain": gains, "final_gain": gains},
    }


SP = _sp("sp", "2203.03466, Table 3, entries in parentheses", SP_STD, "alpha_out fan_out^-1/2")
SP_CONSTANT = _sp(
    "sp-constant", "GPT-2's constant std 0.02; the SP column of 2505.01618, Table 1", dict.fromkeys(SP_STD, "0.02 init_std"), "alpha_out"
)

_VECTOR: dict[str, Any] = {"adam": {"lr": "1", "coupled": "1", "eps": "out_ratio^-1"}, "sgd": "out_ratio"}
_VECTOR_MUON = {**_VECTOR, "muon": _VECTOR["adam"]}
_MUP_HIDDEN = {
    "std": SP_STD["hidden"],
    "multiplier": "1",
    "adam": {"lr": "in_ratio^-1", "coupled": "in_ratio", "eps": "in_ratio^-1"},
    "sgd": "1",
    # the orthogonalised update with optax's sqrt(max(1, out/in)) has the right size at every width (2512.05620, reference code)
    "muon": "1",
}
MUP: dict[str, Any] = {
    "name": "mup",
    "source": "2203.03466, Table 8; eps by Lemma J.1",
    "attention": MUP_HEADS,
    "tied": "alpha_out fan_out^-1/2 out_ratio^-1/2",
    "rows": {
        "input": {"std": "init_std", "multiplier": "alpha_embed", **_VECTOR_MUON},
        "hidden": _MUP_HIDDEN,
        "output": {
            "std": BASE_OUT_STD,
            "multiplier": "alpha_out in_ratio^-1",
            "adam": {"lr": "1", "coupled": "1", "eps": "in_ratio^-1"},
            "muon": {"lr": "1", "eps": "in_ratio^-1"},
            "sgd": "in_ratio",
        },
        "gain": _gains(**_VECTOR_MUON),
        "final_gain": _gains(**_VECTOR_MUON),
    },
}

U_MUP: dict[str, Any] = {
    "name": "u-mup",
    "source": "2407.17465, Table 2 and appendix G; SGD as unit-scaling 0.3.5 with readout_constraint None",
    "unit": True,
    "attention": "alpha_attn head_dim^-1",
    "residual": "tau",
    "ffn_act": "alpha_ffn_act",
    "loss": "alpha_loss",
    "readout_backward": "fan_out^-1/2",
    "rows": {
        "input": {"std": "1", "multiplier": "1", "adam": "embed_lr", "sgd": "embed_lr"},
        "hidden": {"std": "1", "multiplier": "fan_in^-1/2", "adam": "fan_in^-1/2 depth^-1/2", "sgd": "fan_in^-1/2 depth^-1/2"},
        "output": {"std": "1", "multiplier": "fan_in^-1", "adam": "1", "sgd": "1"},
        "gain": _gains(adam="depth^-1/2", sgd="depth^-1/2"),
        "final_gain": _gains(adam="1", sgd="1"),
    },
}

_DATA: tuple[dict[str, Any], ...] = (SP, SP_CONSTANT, MUP, U_MUP)
TABLES: dict[str, Table] = {data["name"]: from_data(data) for data in _DATA}
