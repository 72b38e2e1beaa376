"""Unpaired translation between two domains: CycleGAN and TraVeLGAN (report section 2.3.1.1).

    game = Game(picture_players(picture, k, draws), (k, *picture), Recipe(cycle=2.0), seed)
    training.bring(game, n_steps, data=(a, b))
    translate(game.average["ab"], a.expand(k, *a.shape))

`losses` are pure functions, `networks` small convolutional nets, `game` their training.
"""

from ebmref.translation.game import Game, Pool, Recipe, Step, translate
from ebmref.translation.losses import (
    ADVERSARIES,
    differences,
    discriminator_loss,
    distance,
    generator_loss,
    margin_loss,
    travel_loss,
)
from ebmref.translation.networks import (
    PatchDiscriminator,
    Players,
    Siamese,
    Translator,
    picture_players,
)

__all__ = [
    "ADVERSARIES",
    "Game",
    "PatchDiscriminator",
    "Players",
    "Pool",
    "Recipe",
    "Siamese",
    "Step",
    "Translator",
    "differences",
    "discriminator_loss",
    "distance",
    "generator_loss",
    "margin_loss",
    "picture_players",
    "translate",
    "travel_loss",
]
