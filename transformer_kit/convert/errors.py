"""What can be wrong with a folder that is to come in, or a model that is to go out.

ConvertError      a ValueError; says everything that was found, one line each
"""


class ConvertError(ValueError):
    """A Hugging Face folder cannot be read, or a model cannot be written as one."""

    def __init__(self, where: str, problems: list[str]) -> None:
        self.problems = problems
        lines = problems if len(problems) == 1 else ["", *(f"  {p}" for p in problems)]
        super().__init__(f"{where}: " + "\n".join(lines))
