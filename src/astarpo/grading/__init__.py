"""Who judges answers, safely: verifiers, reward functions and the pool of killable workers."""
