"""What theory says of networks before training, and a rule of tuning, by name. A new one is a file
with a `MODEL`, and its line here.
"""

from ground.claims import Model
from lab.theory import depth_limits, edge_of_chaos, lr_range, variance_control

MODELS: dict[str, Model] = {
    module.MODEL.name: module.MODEL
    for module in (edge_of_chaos, depth_limits, variance_control, lr_range)
}
