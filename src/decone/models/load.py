"""Models of transformers, loaded safely: safetensors only, no code of theirs, no weight filled in, refused in words."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decone.files.folder import read_object
from decone.files.foreign import plain, quoted
from decone.files.safetensors import open_weights

_REPEATED = re.compile(r"(\w*_)?(layers?|labels|experts|blocks|layer_num|depth)")  # keys of what is made so many times
RUN_CONFIG = "config.toml"  # in the folder of a run


def is_run(name: str) -> bool:
    """True for the folder of a decone run; any other model is one of transformers, in a folder or at a hub."""
    folder = Path(name)
    return (folder / RUN_CONFIG).is_file() and not (folder / "config.json").is_file()


@dataclass(frozen=True)
class Loader:
    r"""Loads models, configurations and tokenizers for one use, which its refusals name.

    Attributes:
        needs: beginning of the sentence that says that transformers is missing, e.g. "fine-tuning needs".
        refusal: why something cannot be loaded, with {name} and {reason}.
        incomplete: why a checkpoint without some weights is refused, with {name} and {weight}.
        may_lack: modules that a checkpoint need not have, for they are not used or to be trained.

    Example:
        >>> loader = Loader("drawing needs", "cannot load {name} to be drawn: {reason}", "{name} lacks {weight}")
        >>> with loader.refusing("gpt2"):
        ...     raise OSError("no network\nand more")
        Traceback (most recent call last):
        ValueError: cannot load gpt2 to be drawn: there is no such folder, and at the hub: no network
    """

    needs: str
    refusal: str
    incomplete: str
    may_lack: Sequence[str] = ()

    def library(self) -> Any:
        """The transformers package, without its progress bars; ValueError when it is not installed."""
        try:
            import transformers
        except ImportError:
            raise ValueError(f'{self.needs} transformers: pip install "decone[hf]"') from None
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped there
        return transformers

    @contextmanager
    def refusing(self, name: str) -> Iterator[None]:
        """Turns whatever goes wrong in loading into one sentence, a ValueError."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # libraries raise their own; panics of tokenizers are no Exception
            reason = plain(first_line(error))
            if not Path(name).exists():
                reason = f"there is no such folder, and at the hub: {reason}"
            raise ValueError(self.refusal.format(name=name, reason=reason)) from None

    def config(self, name: str, path: Path | None = None) -> Any:
        """Loads a configuration; arguments and errors as of `model`."""
        transformers = self.library()
        with self.refusing(name):
            require_sizes(path or Path(name))
            return transformers.AutoConfig.from_pretrained(path or name, trust_remote_code=False)

    def tokenizer(self, name: str, path: Path | None = None) -> Any:
        """Loads a tokenizer; arguments and errors as of `model`."""
        transformers = self.library()
        with self.refusing(name):
            tokenizer = transformers.AutoTokenizer.from_pretrained(path or name, trust_remote_code=False)
            tokenizer("", verbose=False)  # settings of wrong types show when it is first used
            return tokenizer

    def model(self, kind: str, name: str, path: Path | None = None, **options: Any) -> tuple[Any, set[str]]:
        """Loads a model with all its weights.

        Args:
            kind: class of transformers, such as "AutoModelForCausalLM".
            name: folder or hub name, also in messages.
            path: folder that is read instead.
            options: of `from_pretrained`.

        Returns:
            The model, and the names of weights in `may_lack` that its files lack.

        Raises:
            ValueError: transformers is missing, there is no such model in safetensors, or it lacks other weights,
                which transformers would fill with random numbers.
        """
        safe = {"trust_remote_code": False, "use_safetensors": True, "output_loading_info": True}
        transformers = self.library()
        with self.refusing(name), _without_report():
            require_sizes(path or Path(name))
            model, report = getattr(transformers, kind).from_pretrained(path or name, **options, **safe)
        missing = set(map(str, report["missing_keys"]))
        mismatched = {str(entry[0]) for entry in report["mismatched_keys"]}
        absent = sorted(key for key in missing | mismatched if not set(self.may_lack).intersection(key.split(".")))
        if absent:
            raise ValueError(self.incomplete.format(name=name, weight=absent[0]))
        return model, missing


@contextmanager
def _without_report() -> Iterator[None]:
    """Keeps the table of absent and superfluous weights off stderr: what matters of it is refused in words."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_report)


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def require_sizes(folder: Path) -> None:
    """Refuses a configuration that repeats something more often than the weights beside it can hold.

    transformers makes a module of every layer and expert, and a name of every label, before it looks at the weights.

    Raises:
        ValueError: as above, or a file cannot be read.
    """
    config = read_object(folder, "config.json")
    if config is None or not any(folder.glob("*.safetensors")):
        return
    shapes = open_weights(folder).shapes.values()
    limit = max(len(shapes), *(size for shape in shapes for size in shape), 1)
    sections = [config]
    while sections:
        section = sections.pop()
        for key, value in section.items():
            if isinstance(value, dict):
                sections.append(value)
            elif isinstance(value, int) and value > limit and _REPEATED.fullmatch(key):
                raise ValueError(
                    f"{folder / 'config.json'}: {plain(key)} is {quoted(value)}, more than the weights beside it hold; "
                    "correct it, or download the model again"
                )


def first_line(error: BaseException) -> str:
    """First line of the message of an exception, or the name of its class."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
