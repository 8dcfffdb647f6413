"""Sizes that are measured; every environment reads them, so nothing is imported here."""

MODELS = {
    "10m": {"vocab": 4096, "width": 256, "layers": 11, "heads": 8, "kv_heads": 4, "head": 32, "mlp": 768},
    "100m": {"vocab": 32_000, "width": 768, "layers": 12, "heads": 12, "kv_heads": 4, "head": 64, "mlp": 2048},
    "4.2m": {"vocab": 1000, "width": 256, "layers": 4, "heads": 8, "kv_heads": 4, "head": 32, "mlp": 1024},
}
TRAIN = {"10m": (8, 256), "100m": (2, 256)}
"""Rows and tokens of a row of a training step."""
PROMPT, NEW = 32, 128
"""Tokens of a greedy generation."""
PROBLEM, TURN, REPLY = 300, 400, 150
"""Tokens of a dialogue's parts at full scale; here a tenth."""
SCALE = 10
ROWS = 32
"""Dialogues at a time."""
