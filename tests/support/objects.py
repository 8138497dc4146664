"""What cells of a notebook would define: functions that no import finds, and rows."""

ROWS = [{"prompt": f"Item {i}:", "answer": str(i % 3), "digit": str(i % 3)} for i in range(12)]


def first_digit(weight: float = 1.0, otherwise: float = 0.0):
    """A reward function inside another: `weight` where an answer holds its row's digit."""

    def score(completions, digit, **columns):
        return [weight if d in c else otherwise for c, d in zip(completions, digit, strict=True)]

    return score
