"""What a look at one leaf finds: it is opened for real, and its anchor asked how it is sealed."""

from __future__ import annotations

from dataclasses import dataclass

from kluis.anchors.base import Anchor, Notice
from kluis.engine.opening import bare, ready, wrong_answer
from kluis.errors import AnchorError, Changed, Damaged, NotSealed
from kluis.keyring import tree
from kluis.keyring.document import Document
from kluis.secret import Secret


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one leaf. Without a failure it gave the right secret.

    ``outdated`` says why it should be sealed anew though it opens: its counterpart rotated.
    """

    failure: AnchorError | None = None
    outdated: str = ""
    notice: Notice | None = None

    @property
    def state(self) -> str:
        """``ok``, or the word of the failure."""
        return self.failure.state if self.failure else "ok"

    @property
    def seen(self) -> str:
        """What was seen, in words."""
        return self.failure.seen if self.failure else "it opened its leaf"

    @property
    def ailment(self) -> str:
        """What sealing anew would heal; empty when there is nothing of the kind."""
        if isinstance(self.failure, Damaged | Changed):
            return self.failure.seen
        return "" if self.failure else self.outdated

    @property
    def may_pass(self) -> bool:
        """Whether it could be well again by itself: another key may be there for a while only."""
        return self.failure is not None and not isinstance(self.failure, NotSealed)


async def look_at(
    document: Document,
    path: tree.Path,
    leaf: tree.AnchorLeaf,
    expected: Secret,
    anchor: Anchor | None,
) -> Finding:
    """Open one leaf, and ask its anchor whether it is sealed as it should be."""
    try:
        sealed, anchor = ready(leaf, anchor)
        secret = await anchor.open(sealed, document.context(path, leaf.kind))
    except AnchorError as error:
        return Finding(bare(error))
    if secret != expected:
        return Finding(wrong_answer())
    try:
        outdated = await anchor.outdated(sealed)
    except AnchorError:  # it opened: that it tells no more is no fault of the leaf
        outdated = ""
    return Finding(None, outdated, anchor.notice)
