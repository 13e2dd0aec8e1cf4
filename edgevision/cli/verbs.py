"""How a verb is added to the command line; each verb has a file of its own."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from edgevision.bundle.trust import Trust

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class VerbAction(argparse._SubParsersAction):  # type: ignore[type-arg]
    """Verbs of one word or two, as `bench compare`; a near miss is told what was meant."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Else argparse refuses an unknown verb before it comes here.
        self.choices = None  # type: ignore[assignment]

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Run the verb's parser."""
        words = [str(word) for word in values or ()]
        if (two := " ".join(words[:2])) in self._name_parser_map:
            words = [two, *words[2:]]
        if words[0] not in self._name_parser_map:
            raise argparse.ArgumentError(None, _unknown(words[0], list(self._name_parser_map)))
        super().__call__(parser, namespace, words, option_string)


def _unknown(word: str, verbs: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, verbs, n=1)
    meant = f"Did you mean '{near[0]}'? " if near else ""
    return f"there is no verb '{word}'. {meant}Verbs: {', '.join(verbs)}"


def add_engines(verb: argparse._ActionsContainer) -> None:
    """Let a verb say where the engines that were finished on this machine lie."""
    verb.add_argument(
        "--engines",
        type=Path,
        metavar="DIR",
        help="default: in EDGEVISION_STATE, and only what this device wrote; DIR is believed",
    )


def add_trust(verb: argparse.ArgumentParser) -> None:
    """Let a verb say whose bundles it takes; `parse_trust` reads it."""
    group = verb.add_argument_group("which bundles it takes")
    group.add_argument(
        "--key",
        action="append",
        type=Path,
        metavar="NAME.pub",
        help="refuse what it did not sign; may be repeated: any of them",
    )
    group.add_argument("--minimum-version", type=int, default=0, metavar="N")
    group.add_argument("--name", metavar="MODEL", help="refuse another model's bundle")


def parse_trust(options: argparse.Namespace) -> Trust:
    """Return what a verb's arguments ask of its bundle.

    Raises:
        ValueError: a version without a key.
    """
    from edgevision.bundle.trust import Trust

    return Trust.of(options.key, options.minimum_version, options.name)


def add_fleet(verb: argparse.ArgumentParser) -> None:
    """Let a verb share frames out; `fleet_fields` reads it."""
    group = verb.add_argument_group("how frames are shared out")
    group.add_argument("--workers", type=int, metavar="N", help="default: this process")
    group.add_argument(
        "--ray", metavar="ADDRESS", help="workers on this Ray cluster; 'local' starts one here"
    )
    group.add_argument("--resume", action="store_true", help="go on with the run in --out")
    group.add_argument("--max-bad", type=int, metavar="N", help="frames that may be passed over")
    group.add_argument("--shard", type=int, metavar="N", help="frames at once (default 250)")
    group.add_argument("--target", metavar="NAME", help="default: what fits each worker best")


def fleet_fields(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `FleetOptions` that a verb's arguments give.

    Raises:
        ValueError: they need a folder that is kept.
    """
    if options.resume and options.out is None:
        raise ValueError("--resume goes on with the run in --out DIR: give it")
    if options.ray not in (None, "local") and options.out is None:
        raise ValueError("--ray: workers of a cluster write to --out DIR, which all see: give it")
    return {
        "workers": 1 if options.workers is None else options.workers,
        "ray": options.ray,
        "frames_a_shard": 250 if options.shard is None else options.shard,
        "resume": options.resume,
        "max_bad": options.max_bad or 0,
        "device": options.device,
        "target": options.target,
        "engines": options.engines,
        "trust": parse_trust(options),
    }


def add_force(verb: argparse._ActionsContainer) -> None:
    """Let a verb that writes files replace those that edgevision did not make."""
    verb.add_argument(
        "--force", action="store_true", help="replace files that edgevision did not make"
    )


def verb(
    verbs: Verbs,
    name: str,
    handler: Callable[[argparse.Namespace], int],
    *,
    example: str,
    is_watched: bool = False,
) -> argparse.ArgumentParser:
    """Add the verb `name`; what its handler says of itself is its help, and `example` ends it.

    One that is watched runs in a process of its own, whose crash is told.
    """
    description = (handler.__doc__ or "").partition("\n")[0]
    sub = verbs.add_parser(
        name,
        help=description,
        description=description,
        epilog=f"example: edgevision {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument("--json", action="store_true", help="print one JSON document, nothing else")
    sub.add_argument("--json-file", type=Path, metavar="FILE", help="write that document to FILE")
    sub.set_defaults(handler=handler, document=None, is_watched=is_watched)
    return sub
