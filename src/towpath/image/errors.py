"""What can go wrong with images, in one tree."""


class ImageError(Exception):
    """An image cannot be built, or not be read. The text names the object; ``hint`` says what to do."""

    def __init__(self, message: str, hint: str = "", code: str = "TP8001") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.code = code
