"""Every error kluis raises, in one tree. Errors are told apart by class, never by text.

KluisError                      what was seen, what it means, what to do next
├── SettingsError               kluis.toml can't be used as it stands
├── PolicyError                 an ``opens`` expression is wrong; knows the position
├── TooManySets                 a policy with more quorums than can be listed
├── DocumentError               a keyring document was refused
│   ├── NotJson                 not JSON, or not UTF-8
│   ├── NotCanonical            JSON, but not in the RFC 8785 form
│   ├── DuplicateName           an object names a member twice
│   ├── UnknownField            a member that the format does not have
│   ├── MissingField            a member that the format demands
│   ├── WrongType               a member of another type, or outside its range
│   ├── WrongBase64             bytes that are not strict base64, or of a wrong length
│   ├── TooLarge                a size, count or depth above its limit
│   ├── ForeignFormat           not a keyring document at all
│   ├── NewerFormat             written by a later kluis
│   ├── Inconsistent            two parts of the document contradict each other
│   └── NotAuthentic            the body's tag does not prove the document
├── ShareError                  a line that can't be used as a paper share
│   ├── WrongWordCount          too few or too many words
│   ├── UnknownWord             a word that is not in the list; knows which
│   ├── WrongChecksum           all words exist, but one of them is wrong
│   ├── ForeignShare            a share of another set
│   ├── RepeatedShare           this share was entered already
│   └── WrongShares             enough shares, but they do not fit together
├── TagMismatch                 a ciphertext does not verify
├── SharesCantCombine           Shamir's shares of one secret contradict each other
├── StoreError                  where documents rest
│   ├── NotFound                there is no such document
│   ├── Conflict                somebody else wrote in between
│   ├── RolledBack              older than what was already seen here
│   ├── Unsafe                  permissions wider than they may be
│   └── WriteFailed             the disk is full, or refuses
├── AnchorError                 an anchor could not seal or open
│   ├── Unreachable             try again; says how soon
│   ├── Refused                 it answered no; a person must act
│   │   └── Changed             no for good: what the leaf was sealed to is another now
│   ├── Missing                 the anchor's key is gone
│   ├── Damaged                 the sealed bytes, or the secret they gave, are wrong
│   │   └── NotSealed           the leaf was never sealed
│   └── Misconfigured           the settings of the anchor can't work
├── Locked                      the keyring is not open in this process
├── CannotOpen                  no quorum could be had
├── KeyringKeyError             a key of the keyring can't do this
│   ├── UnknownKey              no key of that name (or of that kind)
│   ├── BadCiphertext           not a ciphertext of this key
│   └── VersionRefused          a key version that does not exist, or below the minimum
├── ChangeRefused               an apply that would destroy or could not be undone
├── AuditError                  the audit log can't be written, or its chain is broken
├── ServiceError                the running service
│   ├── NotRunning              nobody listens on the control socket
│   ├── AlreadyRunning          another process serves this state
│   └── ListenFailed            the address is taken, or not ours
├── ServerError                 a stock server did not do what was asked
│   ├── ServerUnreachable       no connection
│   ├── ServerHung              a connection, and no answer in time
│   ├── ServerAnswered          it answered no; knows the status
│   ├── InitLost                it was initialised, and nobody has its shares
│   └── WrongServer             not the server that it should be
├── KubernetesError             the Kubernetes API did not do what was asked
│   ├── NoApiAccess             the kubeconfig, or the pod's account, can't be used
│   ├── ApiUnreachable          no connection, or no answer in time
│   ├── ApiRefused              it answered no; knows the status and the reason
│   │   ├── ApiConflict         somebody else wrote in between
│   │   └── ApiGone             the version is older than what it keeps
│   └── NotYet                  an object did not come to a state in time; knows the object
├── WakeFailed                  a hook after a recovery did not do its work
└── UsageError                  a command was called with what it can't use
"""

from __future__ import annotations

from collections.abc import Mapping


class KluisError(Exception):
    """An error a person can act on.

    ``seen`` says what happened, ``means`` why, ``next_step`` what to do; one line each.
    """

    def __init__(self, seen: str, means: str = "", next_step: str = "") -> None:
        super().__init__(seen)
        self.seen = seen
        self.means = means
        self.next_step = next_step


class SettingsError(KluisError):
    """The configuration file can't be used."""


class PolicyError(KluisError):
    """An ``opens`` expression is wrong. ``position`` counts characters from 0."""

    def __init__(self, seen: str, means: str = "", next_step: str = "", position: int = 0) -> None:
        super().__init__(seen, means, next_step)
        self.position = position


class TooManySets(KluisError):
    """The policy has more minimal sets than are worth listing."""


class DocumentError(KluisError):
    """A keyring document was refused."""


class NotJson(DocumentError):
    """The bytes are not JSON in UTF-8."""


class NotCanonical(DocumentError):
    """The bytes are JSON, but not the canonical form (RFC 8785) of it."""


class DuplicateName(DocumentError):
    """An object names a member twice."""


class UnknownField(DocumentError):
    """A member that the format does not have."""


class MissingField(DocumentError):
    """A member that the format demands is not there."""


class WrongType(DocumentError):
    """A member has another type, or a value outside its range."""


class WrongBase64(DocumentError):
    """Bytes that are not strict base64, or of a wrong length."""


class TooLarge(DocumentError):
    """A size, a count or a depth above its limit."""


class ForeignFormat(DocumentError):
    """This is not a keyring document."""


class NewerFormat(DocumentError):
    """The document was written by a later kluis."""


class Inconsistent(DocumentError):
    """Two parts of the document contradict each other."""


class NotAuthentic(DocumentError):
    """The body's tag does not prove the document."""


class ShareError(KluisError):
    """A line that can't be used as a paper share."""


class WrongWordCount(ShareError):
    """Too few or too many words."""


class UnknownWord(ShareError):
    """A word that is not in the SLIP-39 list. ``position`` counts words from 1."""

    def __init__(self, seen: str, means: str = "", next_step: str = "", position: int = 0) -> None:
        super().__init__(seen, means, next_step)
        self.position = position


class WrongChecksum(ShareError):
    """Every word exists, but they are not a share together."""


class ForeignShare(ShareError):
    """A share of another set."""


class RepeatedShare(ShareError):
    """This very share was entered already."""


class WrongShares(ShareError):
    """Enough shares, but they do not fit together."""


class TagMismatch(KluisError):
    """A ciphertext does not verify: another key, another context, or damage."""


class SharesCantCombine(KluisError):
    """Shamir shares of one secret that contradict each other, or are too few."""


class StoreError(KluisError):
    """A place where documents rest failed."""


class NotFound(StoreError):
    """There is no such document."""


class Conflict(StoreError):
    """Somebody else wrote in between."""


class RolledBack(StoreError):
    """The document is older than one that was already seen here."""


class Unsafe(StoreError):
    """Permissions are wider than they may be."""


class WriteFailed(StoreError):
    """The write did not happen; the old document is whole."""


class AnchorError(KluisError):
    """An anchor could not seal or open. ``state`` is its word in ``kluis status``."""

    state = "misconfigured"


class Unreachable(AnchorError):
    """Try again, at the earliest after ``retry_s`` seconds."""

    state = "unreachable"

    def __init__(
        self, seen: str, means: str = "", next_step: str = "", retry_s: float = 0.0
    ) -> None:
        super().__init__(seen, means, next_step)
        self.retry_s = retry_s


class Refused(AnchorError):
    """It answered no; a person must act."""

    state = "refused"


class Changed(Refused):
    """It will never open this leaf again, for what it was sealed to changed: seal it anew."""

    state = "changed"


class Missing(AnchorError):
    """The anchor's key is gone."""

    state = "missing"


class Damaged(AnchorError):
    """The sealed bytes, or the secret they gave, are wrong."""

    state = "damaged"


class NotSealed(Damaged):
    """The leaf was never sealed: its anchor was away."""


class Misconfigured(AnchorError):
    """The anchor's settings can't work."""

    state = "misconfigured"


class Locked(KluisError):
    """The keyring is not open in this process."""


class CannotOpen(KluisError):
    """No quorum could be had."""


class KeyringKeyError(KluisError):
    """A key of the keyring can't do this."""


class UnknownKey(KeyringKeyError):
    """No key of that name, or of another kind."""


class BadCiphertext(KeyringKeyError):
    """Not a ciphertext of this key."""


class VersionRefused(KeyringKeyError):
    """A key version that does not exist, or is below the key's minimum."""


class ChangeRefused(KluisError):
    """A change that would destroy something, or could strand the keyring."""


class AuditError(KluisError):
    """The audit log can't be written, or its chain is broken."""


class ServiceError(KluisError):
    """The running service can't do this."""


class NotRunning(ServiceError):
    """Nobody listens on the control socket."""


class AlreadyRunning(ServiceError):
    """Another process serves this state."""


class ListenFailed(ServiceError):
    """The address is taken, or not one of this machine."""


class ServerError(KluisError):
    """A stock server did not do what was asked."""


class ServerUnreachable(ServerError):
    """There is no connection, or it was cut."""


class ServerHung(ServerError):
    """It took the connection, and did not answer in time."""


class ServerAnswered(ServerError):
    """It answered no. ``status`` is the HTTP status, 0 where it is not known."""

    def __init__(self, seen: str, means: str = "", next_step: str = "", status: int = 0) -> None:
        super().__init__(seen, means, next_step)
        self.status = status


class InitLost(ServerError):
    """The server was initialised, and its shares reached nobody: its storage must be emptied."""


class WrongServer(ServerError):
    """Its certificate, key, user, seal or cluster is not the one that it should have."""


class KubernetesError(KluisError):
    """The Kubernetes API did not do what was asked."""


class NoApiAccess(KubernetesError):
    """The kubeconfig, or what a pod has of its account, can't be used."""


class ApiUnreachable(KubernetesError):
    """There is no connection, it was cut, or no answer came in time."""


class ApiRefused(KubernetesError):
    """It answered no. ``status`` is the HTTP status, ``reason`` Kubernetes' word for it.

    ``retry_s`` is how long it asked to be left alone; 0 when it asked for nothing.
    """

    def __init__(
        self, seen: str, means: str = "", next_step: str = "", status: int = 0, reason: str = ""
    ) -> None:
        super().__init__(seen, means, next_step)
        self.status = status
        self.reason = reason
        self.retry_s = 0.0


class ApiConflict(ApiRefused):
    """409: the object is not at the version that was to be changed."""


class ApiGone(ApiRefused):
    """410: the version of a watch, or the rest of a list, is older than what the API keeps."""


class NotYet(KubernetesError):
    """An object did not come to the awaited state in time; ``last`` is how it was seen last."""

    def __init__(
        self,
        seen: str,
        means: str = "",
        next_step: str = "",
        last: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(seen, means, next_step)
        self.last = last


class WakeFailed(KluisError):
    """A hook that runs after a recovery did not do its work, or not all of it."""


class UsageError(KluisError):
    """A command was called with something it can't use."""
