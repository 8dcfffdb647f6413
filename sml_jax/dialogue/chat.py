"""Chat formats: what is written around the turns. The teacher has the user's role, the student the assistant's.

Markup is plain text with pieces such as <|im_start|> in it. Differences from the families' own chat templates:

  qwen3   The template drops the thinking of past turns, the empty block of a turn without thinking included. So do we
          with thinking policy "strip"; "keep" leaves it where it was sampled.
  llama3  The templates of 3.1 and later begin every dialogue with a system block that has two dates in it. We begin
          with a system block only if there is a system text, and then with exactly that text.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chat:
  """One format.

  Attributes:
    name: of the family.
    teacher, student: headers, before a turn's text.
    end: the piece that ends a turn; a student samples it itself.
    begin: before everything; None = the tokenizer's own beginning-of-text id.
    between: between an end of turn and the next header. It belongs to the next turn's context, since nobody samples it.
    system: header of a system text; "" = it stands before the first text of the teacher, a blank line between.
    stops: further pieces that end a student's turn, where the tokenizer has them.
    pad: pieces for padding; the first that the tokenizer has.
    trim: texts lose the space around them, as in the family's template.
    thought: what stands in the student's header if it is not to think: an empty block of thinking; "" = never thinks.
    unused: pieces that are never written and may lie beyond the model's embedding.
  """

  name: str
  teacher: str
  student: str
  end: str
  begin: str | None = None
  between: str = ""
  system: str = ""
  stops: tuple[str, ...] = ()
  pad: tuple[str, ...] = ()
  trim: bool = False
  thought: str = ""
  unused: tuple[str, ...] = ()


TEACHER, STUDENT, END = "<teacher>", "<student>", "<end>"
MICROWORLD = Chat("microworld", TEACHER, STUDENT, END)

FAMILIES = {
    c.name: c
    for c in (
        Chat(
            "gemma3",
            teacher="<start_of_turn>user\n",
            student="<start_of_turn>model\n",
            end="<end_of_turn>",
            begin="<bos>",
            between="\n",
            stops=("<eos>",),
            pad=("<pad>",),
            trim=True,
            unused=("<image_soft_token>",),  # the text-only models have no row for it
        ),
        Chat(
            "qwen3",
            teacher="<|im_start|>user\n",
            student="<|im_start|>assistant\n",
            end="<|im_end|>",
            begin="",
            between="\n",
            system="<|im_start|>system\n",
            stops=("<|endoftext|>",),
            pad=("<|endoftext|>",),
            thought="<think>\n\n</think>\n\n",
        ),
        Chat(
            "llama3",
            teacher="<|start_header_id|>user<|end_header_id|>\n\n",
            student="<|start_header_id|>assistant<|end_header_id|>\n\n",
            end="<|eot_id|>",
            begin="<|begin_of_text|>",
            system="<|start_header_id|>system<|end_header_id|>\n\n",
            stops=("<|end_of_text|>", "<|eom_id|>"),
            pad=("<|finetune_right_pad_id|>", "<|end_of_text|>"),
            trim=True,
        ),
    )
}
