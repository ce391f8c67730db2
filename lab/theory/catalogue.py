"""What theory says of networks before training, of what counts in them, and a rule of tuning, by
name. A new one is a file with a `MODEL`, and its line here.
"""

from ground.claims import Model
from lab.theory import depth_limits, edge_of_chaos, lr_range, structured, variance_control

MODELS: dict[str, Model] = {
    module.MODEL.name: module.MODEL
    for module in (edge_of_chaos, depth_limits, variance_control, lr_range, structured)
}
