"""A*-PO in one file, on transformers alone: python examples/astar_po_in_one_file.py MODEL [STEPS].

    stage 1   V*(x) = beta1 ln( (1/N) sum_i exp(r_i / beta1) )     N samples of the reference
    stage 2   loss  = ( beta2 ln(pi / pi_ref)(y) - (r(x, y) - V*(x)) )^2     one sample a prompt

The task is sums of four numbers, and MODEL any causal language model that gets some of them right,
such as the one that astarpo ships (src/astarpo/assets/sums). To read, not to use: one
device, nothing is saved, and an answer is right if its last number is.

Shapes: _P problems, _N samples of one, _B sequences, _S all their tokens, _V vocabulary.
"""

import copy
import math
import random
import re
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BETA1, BETA2 = 0.5, 1e-3
NUM_PROBLEMS, NUM_SAMPLES, PROMPTS_PER_STEP = 256, 8, 64
MAX_NEW_TOKENS, LEARNING_RATE = 64, 5e-4


# The task: problems, and a reward for what was written.


def make_problem(rng: random.Random) -> tuple[str, str]:
    """A question and its answer."""
    terms = [rng.randint(1, 9)]
    text = str(terms[0])
    for _ in range(3):
        sign = rng.choice((1, -1))
        terms.append(sign * rng.randint(1, 9))
        text += f" {'+' if sign > 0 else '-'} {abs(terms[-1])}"
    return f"Compute {text}. Answer after ####.\n", str(sum(terms))


def reward_of(response: str, answer: str) -> float:
    """1 if the last number of a response is the answer, else 0."""
    numbers = re.findall(r"-?\d+", response)
    return float(bool(numbers) and numbers[-1] == answer)


# Sampling: token ids are the record, and end with the first end-of-sequence token, if there is one.


@torch.no_grad()
def sample(model, tokenizer, questions: list[str]) -> list[tuple[list[int], list[int]]]:
    """One response to each question, as token ids: (prompt, response)."""
    tokenizer.padding_side = "left"
    inputs = tokenizer(questions, return_tensors="pt", padding=True).to(model.device)
    inputs.pop("token_type_ids", None)
    whole_BS = model.generate(
        **inputs, max_new_tokens=MAX_NEW_TOKENS, pad_token_id=tokenizer.pad_token_id,
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
    )  # fmt: skip
    width = inputs["input_ids"].shape[1]
    pairs = []
    for row, mask in zip(whole_BS.tolist(), inputs["attention_mask"].tolist(), strict=True):
        response = row[width:]
        if tokenizer.eos_token_id in response:
            response = response[: response.index(tokenizer.eos_token_id) + 1]
        pairs.append((row[width - sum(mask) : width], response))
    return pairs


def judge(tokenizer, pairs: list[tuple[list[int], list[int]]], answers: list[str]) -> torch.Tensor:
    """[B] rewards."""
    texts = [tokenizer.decode(response, skip_special_tokens=True) for _, response in pairs]
    return torch.tensor([reward_of(t, a) for t, a in zip(texts, answers, strict=True)])


# Stage 1.


def optimal_values(rewards_PN: torch.Tensor, beta1: float) -> torch.Tensor:
    """[P] V* of each problem, estimated from the rewards of N samples of the reference."""
    num_samples = rewards_PN.shape[1]
    return beta1 * (torch.logsumexp(rewards_PN / beta1, dim=1) - math.log(num_samples))


# Stage 2.


def response_logprobs(model, pairs: list[tuple[list[int], list[int]]]) -> torch.Tensor:
    """[B] ln pi of each whole response, given its prompt."""
    width = max(len(prompt) + len(response) for prompt, response in pairs)
    ids_BS = torch.zeros(len(pairs), width, dtype=torch.long)
    seen_BS, counted_BS = torch.zeros_like(ids_BS), torch.zeros_like(ids_BS)
    for row, (prompt, response) in enumerate(pairs):
        length = len(prompt) + len(response)
        ids_BS[row, :length] = torch.tensor(prompt + response)
        seen_BS[row, :length] = 1
        counted_BS[row, len(prompt) : length] = 1
    ids_BS, seen_BS, counted_BS = (x.to(model.device) for x in (ids_BS, seen_BS, counted_BS))
    logits_BSV = model(input_ids=ids_BS, attention_mask=seen_BS).logits[:, :-1].float()
    chosen_BS = ids_BS[:, 1:, None]  # the logits at a place are of the token after it
    logprobs_BS = logits_BSV.log_softmax(dim=-1).gather(-1, chosen_BS)[..., 0]
    return (logprobs_BS * counted_BS[:, 1:]).sum(dim=1)


def astar_po_loss(logprob_B, ref_logprob_B, rewards_B, values_B, beta2: float) -> torch.Tensor:
    """The mean squared residual, a scalar."""
    return (beta2 * (logprob_B - ref_logprob_B) - (rewards_B - values_B)).square().mean()


def main(name: str, num_steps: int) -> None:
    """Both stages."""
    torch.manual_seed(0)
    rng = random.Random(0)
    tokenizer = AutoTokenizer.from_pretrained(name)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    policy = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()
    reference = copy.deepcopy(policy).requires_grad_(False)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    problems = [make_problem(rng) for _ in range(NUM_PROBLEMS)]

    questions = [question for question, _ in problems]
    answers = [answer for _, answer in problems]
    rewards = [judge(tokenizer, sample(reference, tokenizer, questions), answers)
               for _ in range(NUM_SAMPLES)]  # fmt: skip
    rewards_PN = torch.stack(rewards, dim=1)
    values_P = optimal_values(rewards_PN, BETA1)
    print(f"stage 1: mean reward {rewards_PN.mean():.3f}, mean V* {values_P.mean():.3f}")

    for step in range(1, num_steps + 1):
        chosen = rng.sample(range(NUM_PROBLEMS), PROMPTS_PER_STEP)
        pairs = sample(policy, tokenizer, [questions[i] for i in chosen])
        rewards_B = judge(tokenizer, pairs, [answers[i] for i in chosen])
        with torch.no_grad():
            ref_logprob_B = response_logprobs(reference, pairs)
        logprob_B = response_logprobs(policy, pairs)
        loss = astar_po_loss(logprob_B, ref_logprob_B, rewards_B, values_P[chosen], BETA2)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        kl = (logprob_B.detach() - ref_logprob_B).mean()
        print(f"step {step}: reward {rewards_B.mean():.3f}  loss {loss:.4f}  KL {kl:.3f} nats")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60)
