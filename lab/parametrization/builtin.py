"""The built-in tables, each as its paper prints it, relative to a base shape.

Constants: at the base shape every table with a base is fan-in SP, number for number: hidden and
readout std 1/sqrt(fan_in), embedding std 1 (a one-hot input has fan-in 1), each times the trial's
init_std. eps follows the size of the stored tensor's gradient.
"""

from typing import Any

from lab.parametrization.table import Table, from_data

SP_STD = {"input": "init_std", "hidden": "init_std fan_in^-1/2", "output": "init_std fan_in^-1/2"}
BASE_OUT_STD = "init_std fan_in^-1/2 in_ratio^1/2"  # the base model's readout std at every width
MUP_HEADS = "alpha_attn head_dim^-1/2 head_ratio^-1/2"  # sqrt(base_head_dim) / head_dim


def _gains(**updates: Any) -> dict[str, Any]:
    """A gains row: start at 1, never decay (as in the reference code of 2505.01618)."""
    columns = {
        family: update if isinstance(update, dict) else {"lr": update}
        for family, update in updates.items()
    }
    no_decay = {
        family: {**column, "weight_decay": "0", "coupled": "0"}
        for family, column in columns.items()
    }
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
    "sp-constant",
    "GPT-2's constant std 0.02; the SP column of 2505.01618, Table 1",
    dict.fromkeys(SP_STD, "0.02 init_std"),
    "alpha_out",
)

_VECTOR: dict[str, Any] = {
    "adam": {"lr": "1", "coupled": "1", "eps": "out_ratio^-1"},
    "sgd": "out_ratio",
}
_VECTOR_MUON = {**_VECTOR, "muon": _VECTOR["adam"]}
_MUP_HIDDEN = {
    "std": SP_STD["hidden"],
    "multiplier": "1",
    "adam": {"lr": "in_ratio^-1", "coupled": "in_ratio", "eps": "in_ratio^-1"},
    "sgd": "1",
    # the orthogonalised update with optax's sqrt(max(1, out/in)) has the right size at every width
    # (2512.05620, reference code)
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
    "source": "2407.17465, Table 2 and appendix G; SGD as unit-scaling 0.3.5 with "
    "readout_constraint None",
    "unit": True,
    "attention": "alpha_attn head_dim^-1",
    "residual": "tau",
    "ffn_act": "alpha_ffn_act",
    "loss": "alpha_loss",
    "readout_backward": "fan_out^-1/2",
    "rows": {
        "input": {"std": "1", "multiplier": "1", "adam": "embed_lr", "sgd": "embed_lr"},
        "hidden": {
            "std": "1",
            "multiplier": "fan_in^-1/2",
            "adam": "fan_in^-1/2 depth^-1/2",
            "sgd": "fan_in^-1/2 depth^-1/2",
        },
        "output": {"std": "1", "multiplier": "fan_in^-1", "adam": "1", "sgd": "1"},
        "gain": _gains(adam="depth^-1/2", sgd="depth^-1/2"),
        "final_gain": _gains(adam="1", sgd="1"),
    },
}

# Table 3: no multiplier, so the readout shrinks by its init and LR; such a readout cannot be the
# embedding too.
MUP_TABLE3: dict[str, Any] = {
    "name": "mup-table3",
    "source": "2203.03466, Table 3",
    "attention": MUP_HEADS,
    "rows": {
        **MUP["rows"],
        "output": {
            "std": "init_std fan_in^-1/2 in_ratio^-1/2",
            "multiplier": "alpha_out",
            "adam": {"lr": "in_ratio^-1", "coupled": "in_ratio"},
            "muon": {"lr": "in_ratio^-1"},
            "sgd": "in_ratio^-1",
        },
    },
}

# Table 9: SGD needs no LR factors.
MUP_TABLE9: dict[str, Any] = {
    "name": "mup-table9",
    "source": "2203.03466, Table 9",
    "attention": MUP_HEADS,
    "rows": {
        "input": {
            "std": "init_std out_ratio^-1/2",
            "multiplier": "alpha_embed out_ratio^1/2",
            "adam": {"lr": "out_ratio^-1/2", "coupled": "out_ratio^1/2", "eps": "out_ratio^-1/2"},
            "sgd": "1",
        },
        "hidden": {name: cell for name, cell in _MUP_HIDDEN.items() if name != "muon"},
        "output": {
            "std": SP_STD["output"],
            "multiplier": "alpha_out in_ratio^-1/2",
            "adam": {"lr": "in_ratio^-1/2", "coupled": "in_ratio^1/2", "eps": "in_ratio^-1/2"},
            "sgd": "1",
        },
        # a gain has no init to shrink: it keeps the vector row of Table 8
        "gain": _gains(**_VECTOR),
        "final_gain": _gains(**_VECTOR),
    },
}

# muP with every stored weight of constant size: Table 8 moved by Lemma J.1, theta = in_ratio^-1/2
# on the hidden row.
MEAN_FIELD: dict[str, Any] = {
    "name": "mean-field",
    "source": "1/n readout and 1/sqrt(n) hidden multipliers (2407.05872); LRs from 2203.03466, "
    "Table 8, by Lemma J.1",
    "attention": MUP_HEADS,
    "tied": MUP["tied"],
    "rows": {
        **{
            role: {name: cell for name, cell in row.items() if name != "muon"}
            for role, row in MUP["rows"].items()
        },
        "hidden": {
            "std": BASE_OUT_STD,
            "multiplier": "in_ratio^-1/2",
            "adam": {"lr": "in_ratio^-1/2", "coupled": "in_ratio^1/2", "eps": "in_ratio^-3/2"},
            "sgd": "in_ratio",
        },
    },
}

# The kernel limit: features move by n^-1/2. LRs of the s = 0 member of the family in 2304.02034
# (its weights carry no multiplier; moved here by theta = in_ratio^-1/2).
_NTK_VECTOR: dict[str, Any] = {
    "adam": {"lr": "out_ratio^-1/2", "eps": "out_ratio^-1/2"},
    "sgd": "1",
}
NTK: dict[str, Any] = {
    "name": "ntk",
    "source": "2304.02034, equations 1.99-1.116, s = 0",
    "attention": "alpha_attn head_dim^-1/2",
    "rows": {
        "input": {"std": "init_std", "multiplier": "alpha_embed", **_NTK_VECTOR},
        "hidden": {
            "std": BASE_OUT_STD,
            "multiplier": "in_ratio^-1/2",
            "adam": {"lr": "in_ratio^-1", "eps": "in_ratio^-1"},
            "sgd": "1",
        },
        "output": {
            "std": BASE_OUT_STD,
            "multiplier": "alpha_out in_ratio^-1/2",
            "adam": {"lr": "in_ratio^-1/2", "eps": "in_ratio^-1/2"},
            "sgd": "1",
        },
        "gain": _gains(**_NTK_VECTOR),
        "final_gain": _gains(**_NTK_VECTOR),
    },
}


def _deep(name: str, source: str, power: str, muon: bool) -> dict[str, Any]:
    """muP (Table 8) with branches over depth_ratio^alpha; `power` spells depth_ratio^alpha
    (2505.01618, Table 1).

    SGD: a branch's gradient carries its scale, so the LR factor that keeps scale x update at
    1/depth_ratio is depth_ratio^(2 alpha - 1).
    """
    inverse = {"depth_ratio_alpha": "depth_ratio_alpha^-1", "depth_ratio^1/2": "depth_ratio^-1/2"}[
        power
    ]
    adam = f"{power} depth_ratio^-1"
    sgd = f"{power} {power} depth_ratio^-1"
    gains = {
        "adam": {"lr": adam, "coupled": "1", "eps": f"out_ratio^-1 {inverse}"},
        "sgd": f"out_ratio {sgd}",
    }
    hidden = {
        "std": SP_STD["hidden"],
        "multiplier": "1",
        "adam": {
            "lr": f"in_ratio^-1 {adam}",
            "coupled": "in_ratio",
            "eps": f"in_ratio^-1 {inverse}",
        },
        "sgd": sgd,
    }
    rows = {
        role: {column: cell for column, cell in row.items() if muon or column != "muon"}
        for role, row in MUP["rows"].items()
    }
    if muon:  # its update has a fixed size, like Adam's
        gains["muon"] = gains["adam"]
        hidden["muon"] = adam
    rows |= {"hidden": hidden, "gain": _gains(**gains)}
    return {
        "name": name,
        "source": source,
        "attention": MUP_HEADS,
        "branch": inverse,
        "tied": MUP["tied"],
        "rows": rows,
    }


COMPLETEP = _deep(
    "completep", "2505.01618, Table 1; Muon as 2512.05620", "depth_ratio_alpha", muon=True
)
DEPTH_MUP = _deep(
    "depth-mup",
    "2310.02244; the alpha = 1/2 column of 2505.01618, Table 1",
    "depth_ratio^1/2",
    muon=False,
)

# CompleteP's completion: the readout of Table 3, and one factor from the horizon, which is all that
# batch and tokens decide together.
_LR_HORIZON, _EPS_HORIZON = "batch_ratio^1/2 token_ratio^-1/2", "batch_ratio^-1/2 token_ratio^1/2"
_DECAY_HORIZON = "batch_ratio token_ratio^-1"  # independent: LR factor x coupled factor


def _horizon(lr: str, coupled: str, eps: str) -> dict[str, Any]:
    columns = {
        "lr": f"{lr} {_LR_HORIZON}",
        "weight_decay": _DECAY_HORIZON,
        "coupled": f"{coupled} {_LR_HORIZON}",
        "eps": f"{eps} {_EPS_HORIZON}",
    }
    return {"adam": columns}


_IN_STACK_LR, _IN_STACK_EPS = "depth_ratio_alpha depth_ratio^-1", "depth_ratio_alpha^-1"
COMPLETED_P: dict[str, Any] = {
    "name": "completed-p",
    "source": "2512.22382, Table 1",
    "attention": MUP_HEADS,
    "branch": "depth_ratio_alpha^-1",
    "one_minus_beta": "batch_ratio token_ratio^-1",
    "rows": {
        "input": {
            "std": "init_std",
            "multiplier": "alpha_embed",
            **_horizon("1", "1", "out_ratio^-1"),
        },
        "hidden": {
            "std": SP_STD["hidden"],
            "multiplier": "1",
            **_horizon(f"in_ratio^-1 {_IN_STACK_LR}", "in_ratio", f"in_ratio^-1 {_IN_STACK_EPS}"),
        },
        "output": {
            "std": "init_std fan_in^-1/2 in_ratio^-1/2",
            "multiplier": "alpha_out",
            **_horizon("in_ratio^-1", "in_ratio", "1"),
        },
        "gain": _gains(**_horizon(_IN_STACK_LR, "1", f"out_ratio^-1 {_IN_STACK_EPS}")),
        "final_gain": _gains(**_horizon("1", "1", "out_ratio^-1")),
    },
}

# muP in the fan-in that masks leave, density x fan_in, on what is pruned. It is derived for random
# static masks; under magnitude pruning and dynamic masks its authors find that it corrects too
# much (section 4.4). They give no eps (a gradient keeps its size: muP's), no rule for coupled decay
# and none for Muon.
SUPAR: dict[str, Any] = {
    "name": "supar",
    "source": "2405.15743, Table 1; SGD by appendix D.3.1",
    "attention": MUP_HEADS,
    "tied": MUP["tied"],
    "rows": {
        **{
            role: {name: cell for name, cell in row.items() if name != "muon"}
            for role, row in MUP["rows"].items()
        },
        "hidden": {
            "std": "init_std fan_in^-1/2 density^-1/2",
            "multiplier": "1",
            "adam": {"lr": "in_ratio^-1 density^-1", "eps": "in_ratio^-1"},
            "sgd": "density^-1",
        },
    },
}

_DATA: tuple[dict[str, Any], ...] = (
    SP, SP_CONSTANT, NTK, MEAN_FIELD, MUP, MUP_TABLE3, MUP_TABLE9, U_MUP, DEPTH_MUP, COMPLETEP,
    COMPLETED_P, SUPAR,
)  # fmt: skip
TABLES: dict[str, Table] = {data["name"]: from_data(data) for data in _DATA}
