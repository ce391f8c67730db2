"""Every solvable model by its name. A new one is a file with a `MODEL`, and its line here."""

from fits.theory import init_rank, memories, polynomial, random_features, relu_rank, solvable
from ground.claims import Model

MODELS: dict[str, Model] = {
    module.MODEL.name: module.MODEL
    for module in (random_features, solvable, memories, relu_rank, polynomial, init_rank)
}
