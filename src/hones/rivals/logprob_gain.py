"""Log-probability gain of each neuron alone (Yu & Ananiadou).

    score[l,i] = mean over x of log p(y | h + z[l,i] W_down[:,i]) - log p(y | h)
    log p(. | x) = log softmax(U (a g x))        g: the final norm's gain, a = 1 / rms(h) held fixed for x = h + ...

A layer norm also takes off the mean of x and adds a bias, a = 1 / std(h); lm_head may have a bias.

h [d] is the residual before the FFN of layer l at the last prompt position, y the first token of the gold answer.
Every neuron costs a softmax over the vocabulary: for each layer M = U diag(g) W_down is built by chunks of neurons.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hones.errors import HonesError
from hones.method.direction import final_norm
from hones.models.capture import FFN, LEAVING, collect
from hones.models.head import PLAIN_HEAD
from hones.models.writing import activations, importance_shape, is_plain, write_vectors
from hones.rivals.base import Context, Importance, Method
from hones.rivals.reading import PROMPTS_AT_ONCE, ask, batches

CELLS_AT_ONCE = 2**24


class LogProbabilityGain(Method, known="logprob-gain"):
    """What a neuron alone adds to the answer's log-probability."""

    @torch.no_grad()
    def importance(self, context: Context) -> Importance:
        """The mean gain; everything after z and h in float32, sums in float64."""
        vlm = context.vlm
        total = np.zeros(importance_shape(vlm))
        vlm.check_write_in()
        if not is_plain(vlm.anatomy):
            raise HonesError(
                f"{vlm.name}: a norm, a gate or a factor follows down_proj, so z W_down is not what enters the "
                "residual",
                do="use a method that does not add z W_down to it, such as hones or dvp",
            )
        if vlm.after_head != PLAIN_HEAD:
            raise HonesError(
                f"{vlm.name}: its logits are scaled or capped behind lm_head, log p is not linear in h there",
                do="use another method",
            )
        norm, lm_head = final_norm(vlm), vlm.anatomy.lm_head
        unembedding = norm.folded(lm_head.weight.float())
        constant = norm.bias.to(unembedding.device) @ lm_head.weight.float().T
        constant = constant if lm_head.bias is None else constant + lm_head.bias.float()
        for part in batches(context, context.examples, PROMPTS_AT_ONCE, "log-probability gain"):
            gold = [vlm.answer_ids(e.prompts[0], context.task.answers_to_learn(e)[0])[0] for e in part]
            answers = torch.tensor(gold, device=unembedding.device)
            with (
                collect(vlm.anatomy, LEAVING, lambda x: x[:, -1].float()) as leaving,
                collect(vlm.anatomy, FFN, lambda x: x[:, -1].float()) as added,
            ):
                z = activations(vlm, ask(vlm, part))
            for number, layer in enumerate(vlm.anatomy.layers):
                write = write_vectors(layer).to(unembedding.device)
                h = (leaving[number] - added[number]).to(unembedding.device)
                z_of_layer = z[:, number].to(unembedding.device)
                scale = norm.scale(h, vlm.model.dtype)
                gains = gains_of_layer(unembedding, constant, write, h, z_of_layer, answers, scale)
                total[number] += gains.sum(0, dtype=torch.float64).cpu().numpy()
        return (total / len(context.examples)).astype(np.float32)


def gains_of_layer(
    unembedding: Float[Tensor, "vocabulary width"],
    constant: Float[Tensor, " vocabulary"],
    write: Float[Tensor, "width neurons"],
    h: Float[Tensor, "batch width"],
    z: Float[Tensor, "batch neurons"],
    answers: Int[Tensor, " batch"],
    scale: Float[Tensor, " batch"],
) -> Float[Tensor, "batch neurons"]:
    """Every neuron's gain; `unembedding` has the final norm in it, `constant` are the logits of biases."""
    logits = h @ unembedding.T * scale[:, None] + constant
    base = logits.log_softmax(-1).gather(1, answers[:, None])
    size = max(1, CELLS_AT_ONCE // len(unembedding))
    gains = []
    for start in range(0, write.shape[1], size):
        promoted = unembedding @ write[:, start : start + size]
        rows = []
        for row, token in enumerate(answers.tolist()):
            changed = logits[row][:, None] + scale[row] * z[row, start : start + size] * promoted
            rows.append(changed[token] - changed.logsumexp(0))
        gains.append(torch.stack(rows))
    # the two sums over the vocabulary round differently, which is no gain of a neuron that writes nothing
    silent = (z == 0) | (write == 0).all(0)
    return (torch.cat(gains, 1) - base).masked_fill(silent, 0)
