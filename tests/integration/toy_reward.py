"""A reward that tells the dialogues of a group apart even where none is solved."""


def reward(dialogue):
  tokens = [t for turn in dialogue.student_turns for t in turn.tokens]
  return len(set(tokens)) / (1 + len(tokens)) if tokens else 0.0
