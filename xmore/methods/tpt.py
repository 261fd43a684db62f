"""`tpt`: test-time prompt tuning (Shu et al. 2022): a context is tuned for each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xmore.methods.base import (
    MethodRequest,
    QueryShard,
    Scorer,
    ScoringContext,
    Setting,
    Settings,
    Variant,
    needed,
)
from xmore.methods.confident_views import confident, view_settings

if TYPE_CHECKING:
    import torch

    from xmore.models.prompt_tuning import PromptedClasses
    from xmore.models.spec import ModelCard

LEARNING_RATE = 5e-3  # section 4; AdamW, one step
AT_ONCE = 1 << 25  # numbers in the class features of the images that are tuned together: 128 MB


class Tpt(Scorer):
    """One step on "a photo of a", which makes the kept views' mean prediction more confident.

    The kept augmented views are those of `confident`. The prompt is always "a photo of a {class}.",
    whatever the config says. The text tower computes in the model's precision, all else in float32;
    in fp16, gradients are scaled as in the public code.
    """

    name = "tpt"
    version = 1
    needs = frozenset({"view_embeddings"})
    reads_prompts = False
    part_rows = 16

    def check(self, request: MethodRequest, model: ModelCard, class_names: list[str]) -> None:
        from xmore.models.prompt_tuning import check_tunable

        check_tunable(model)

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        tuning = {"learning_rate": LEARNING_RATE, "steps": 1, "context": "a photo of a"}
        return view_settings(request.options.views) | {
            name: Setting(value, "paper") for name, value in tuning.items()
        }

    def identity(self, request: MethodRequest) -> dict[str, Any]:
        return {"keep": request.options.views.keep}

    def prepare(self, context: ScoringContext) -> Callable[[QueryShard], np.ndarray]:
        import torch

        from xmore.methods.scoring import class_probabilities
        from xmore.models.prompt_tuning import PromptedClasses

        encoder, keep = context.load(), context.request.options.views.keep
        classes = PromptedClasses(encoder, context.class_names)
        untuned = classes.features(classes.start[None])[0]
        together = max(1, AT_ONCE // untuned.numel())

        def score(shard: QueryShard) -> np.ndarray:
            views, clean = needed(shard.views), untuned.cpu().numpy()
            scores = []
            for first in range(0, len(views), together):
                some = views[first : first + together]
                kept = [
                    torch.from_numpy(
                        each[confident(class_probabilities(each, clean, context.tau), keep)]
                    ).to(encoder.device)
                    for each in some
                ]
                contexts = tune(classes, untuned, kept, context.tau)
                for each, tuned in zip(some, classes.features(contexts).cpu().numpy(), strict=True):
                    scores.append(class_probabilities(each[:1], tuned, context.tau)[0])
            return np.stack(scores)

        return score


def tune(
    classes: PromptedClasses, untuned: torch.Tensor, views: Sequence[torch.Tensor], tau: float
) -> torch.Tensor:
    """Take one AdamW step from the initial context, for each image: (B, TOKENS, W) contexts.

    `untuned` (C, D) are the classes with the initial context, `views` B times the (n, D) kept
    augmented views; both are unit rows. The optimiser keeps nothing: images are independent.
    """
    import torch

    features = untuned.detach().clone().requires_grad_()
    of_features = [
        torch.autograd.grad(entropy_of_mean(tau * kept @ features.T), features)[0] for kept in views
    ]
    contexts = torch.nn.Parameter(classes.start.repeat(len(views), 1, 1))
    contexts.grad = classes.gradients(torch.stack(of_features))
    torch.optim.AdamW([contexts], lr=LEARNING_RATE).step()
    return contexts.detach()


def entropy_of_mean(logits: torch.Tensor) -> torch.Tensor:
    """Return the entropy of the augmented views' mean probabilities, in nats: (n, C) -> scalar."""
    mean = logits.softmax(1).mean(0)
    return -(mean * mean.clamp_min(1e-38).log()).sum()


METHOD = Tpt()
