"""The Trainer that refines: a module learns its teacher's answers, and is judged by how many of them it gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState

from ..models.pretrained import Pretrained
from ..tasks.agreement import Agreement
from .answer_kinds import Distance
from .lesson import Lesson, LessonCollator

METRICS = ("low", "high", "agreement")
"""What evaluation logs beside the loss: the ends of the agreement's 95% interval, and the agreement, in percent."""
STANDING = "standing"
"""What evaluation logs for states to be compared by, see `standing`."""
_AGREEMENT = f"eval_{METRICS[-1]}"
# So many looks without a gain end a training.
_PATIENCE = 3


def standing(agreement: float, divergence: float) -> float:
    """Rank a state by its agreement and, of equals, by its divergence: on few texts many states agree alike."""
    return agreement - 1e-6 * divergence


def measured(found: Agreement) -> dict[str, float]:
    """Give what a look logs of an agreement: the divergence as loss, and `METRICS`."""
    return {"loss": found.divergence, **dict(zip(METRICS, (*found.interval, found.percent), strict=True))}


class Refiner(Trainer):  # type: ignore[misc]
    """Train a model on the distance of its answers from a teacher's; evaluation is the agreement of the two."""

    control: TrainerControl

    def __init__(self, lesson: Lesson, base: Pretrained, distance: Distance, hidden: float, **options: Any) -> None:
        """Take what is learnt.

        Args:
            lesson: texts, and the teacher's answers.
            base: the student's base model.
            distance: the loss.
            hidden: weight of the distance of last hidden states beside it.
            options: of the Trainer.
        """
        super().__init__(data_collator=LessonCollator(lesson, base), eval_dataset=(), **options)
        self.model_accepts_loss_kwargs = False  # the loss is a mean over this batch, whatever the model could do
        # Only here the model is on its device; a training that goes on has not read its checkpoint yet.
        self.lesson, self.base, self.distance = lesson.bridged(self.model.eval(), base), base, distance
        self.hidden = hidden

    def compute_loss(self, model: Any, inputs: Mapping[str, Any], *_: Any, **__: Any) -> Tensor:
        """Average the distances over the rows of a batch; 0 where the teacher answers none of its texts.

        Where there are labelled rows, it is the mean of that and of the task's own loss on them.
        """
        places = ("answers_text", "answers_token")
        of_teacher = ("answers", *places, "answers_states", "labelled")
        read = {name: value for name, value in inputs.items() if name not in of_teacher}
        hidden = self.lesson.hidden
        said, states = self.lesson.kind.learning.asked(model, read, None if hidden is None else self.model)
        place = tuple(inputs[name] for name in places if name in inputs)
        rows = said[place]
        if self.lesson.bridge is not None:
            rows = self.lesson.bridge(rows)
        losses = self.distance(rows, inputs["answers"], inputs["answers_text"])
        distance = losses.sum() / max(len(losses), 1)
        if hidden is not None and states is not None:
            apart = hidden(states[place], inputs["answers_states"])
            distance = distance + self.hidden * apart.sum() / max(len(apart), 1)
        if "labelled" not in inputs:
            return distance
        loss: Tensor = model(**inputs["labelled"]).loss
        return (distance + loss) / 2

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Compare the answers to the held-out texts; every process looks at all of them."""
        found = self.lesson.agreement(self.model.eval(), self.base)
        looked = measured(found) | {STANDING: standing(found.percent, found.divergence)}
        metrics = {f"eval_{name}": value for name, value in looked.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class StopWhereNothingIsGained(TrainerCallback):  # type: ignore[misc]
    """End a training after some looks without a gain; by its log alone, so that a resumed one ends as well."""

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Go no further where it had ended before it was killed."""
        self.on_evaluate(args, state, control)

    def on_evaluate(self, _args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look at what was gained."""
        looks = [entry[_AGREEMENT] for entry in state.log_history if _AGREEMENT in entry]
        if len(looks) > _PATIENCE and max(looks[-_PATIENCE:]) <= max(looks[:-_PATIENCE]):
            control.should_training_stop = True
