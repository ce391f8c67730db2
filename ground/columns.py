"""The table: one row a run, the interface between training and fitting."""

from typing import NamedTuple


class Column(NamedTuple):
    """`kind` is str, int or float; `unit` is "" for names and pure numbers."""

    name: str
    kind: type
    unit: str
    meaning: str


_TOKENS, _PARAMS, _NATS = "tokens", "parameters", "nats per token"

TABLE = (
    Column("run_id", str, "", "one run; of several rows the last counts"),
    Column("study", str, "", "the question that the run belongs to"),
    Column("params", int, _PARAMS, "all of them: layers, embedding, readout (once where tied)"),
    Column("params_no_embed", int, _PARAMS, "without embedding and readout"),
    Column("params_head", int, _PARAMS, "of the readout"),
    Column("params_active", int, _PARAMS, "that one token passes through or looks up"),
    Column("params_nonzero", int, _PARAMS, "that are not pruned at the end of the run"),
    Column("params_nonzero_mean", float, _PARAMS, "that are not pruned, mean over the run's steps"),
    Column("width", int, "entries", "of the residual stream"),
    Column("depth", int, "layers", "of attention and MLP"),
    Column("heads", int, "heads", "of attention"),
    Column("ff", int, "entries", "of the MLP's hidden layer"),
    Column("activation", str, "", "of the MLP"),
    Column("vocab", int, "entries", "of the tokenizer"),
    Column("sequence", int, _TOKENS, "of one sequence"),
    Column("parametrization", str, "", "name of the table of exponents"),
    Column("optimizer", str, "", "by its usual name"),
    Column("tokens", int, _TOKENS, "trained on"),
    Column("unique_tokens", int, _TOKENS, "distinct ones among them"),
    Column("epochs", float, "", "tokens / unique_tokens"),
    Column("batch_tokens", int, _TOKENS, "of an optimizer step; where they change, the mean"),
    Column(
        "batch_schedule", str, "", "sequences of a step from a share of tokens on: 64@0,128@0.5"
    ),
    Column("steps", int, "steps", "of the optimizer"),
    Column("flops", float, "FLOP", "6 params_active tokens (ground.flops)"),
    Column("flops_exact", float, "FLOP", "matrices and causal attention counted (ground.flops)"),
    Column("lr", float, "", "at the schedule's peak, before the parametrization's factor"),
    Column("lr_applied_hidden", float, "", "of the hidden matrices, at the schedule's peak"),
    Column("weight_decay", float, "1/step", "independent decay at the schedule's peak"),
    Column("tau", float, "", "batch_tokens / (weight_decay tokens): AdamW's timescale, of the run"),
    Column("warmup_tokens", int, _TOKENS, "until the schedule's peak"),
    Column("schedule", str, "", "of the learning rate"),
    Column("pruning", str, "", "how weights were pruned: gradual, nm, static or set; none: dense"),
    Column("sparsity", float, "", "share of zeros among the weights that may be pruned"),
    Column("prune_start", float, "", "share of the run where the ramp of gradual and nm starts"),
    Column("prune_end", float, "", "share of the run where masks stop to change; none: static"),
    Column("prune_pattern", str, "", "of nm: 2:4 or 4:8 weights kept"),
    Column("experts", int, "experts", "of a routed layer; 1: dense"),
    Column("experts_per_token", int, "experts", "of a token in a routed layer, the most"),
    Column("shared_experts", int, "experts", "of a layer that every token passes through"),
    Column("granularity", float, "", "ff over the hidden entries of an expert"),
    Column("router", str, "", "of routed experts, by its name"),
    Column("active_neurons", float, "", "share of the MLP's hidden entries not 0, after the run"),
    Column("dead_neurons", float, "", "share of the MLP's neurons that no validation token uses"),
    Column("activation_ratio", float, "", "share of neurons kept at 1 % more perplexity"),
    Column("init_seed", int, "", "of the parameters"),
    Column("data_seed", int, "", "of the order of the data"),
    Column("loss", float, _NATS, "on the validation split after the last step"),
    Column("loss_se", float, _NATS, "standard error of loss over validation sequences"),
    Column("loss_init", float, _NATS, "training loss of the first step"),
    Column("bits_per_byte", float, "bits per byte", "loss by the text's bytes"),
    Column("status", str, "", "done, diverged or failed"),
    Column("diverged_step", int, "steps", "the first step whose loss was not finite"),
    Column("seconds", float, "s", "of training, this run's share of its cohort"),
    Column("step_seconds", float, "s", "of one step, this run's share of its cohort, the median"),
    Column("cohort", int, "runs", "that step together on a device"),
    Column("device", str, "", "that trained it"),
    Column("code", str, "", "git revision"),
    Column("semantics", int, "", "version of the training numerics"),
)
# of schedule: wsd's cooldown over the last fifth of a run, 2405.18392, section 4
WSD_DECAY = 0.2
COLUMNS = tuple(column.name for column in TABLE)
TEXT = frozenset(column.name for column in TABLE if column.kind is str)
WHOLE = frozenset(column.name for column in TABLE if column.kind is int)
