"""Who looks at a page, and at whose things: a client at its own, the operator at one client's or at all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from multidict import MultiMapping

from relay.api.problems import Problem, not_found
from relay.core.model import ClientName
from relay.core.settings import Client
from relay.dashboard.sessions import Session


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who is logged in, and the clients whose things are shown."""

    session: Session
    #: Every client that this viewer may see, by name.
    visible: Mapping[ClientName, Client]
    #: The one that is shown; None: all that are visible.
    chosen: ClientName | None

    @property
    def is_operator(self) -> bool:
        """Whether this is the operator, who sees every client."""
        return self.session.client is None

    @property
    def name(self) -> str:
        """What to call the viewer."""
        return self.session.client or "operator"

    @property
    def scope(self) -> Sequence[ClientName]:
        """The clients whose things are shown."""
        return tuple(self.visible) if self.chosen is None else (self.chosen,)

    def client(self, name: ClientName | None) -> Client:
        """A client that is visible. Raises Problem (404)."""
        found = None if name is None else self.visible.get(name)
        if found is None:
            raise not_found()
        return found


def viewer_of(session: Session, clients: Mapping[ClientName, Client], query: MultiMapping[str]) -> Viewer:
    """The viewer that a session and `?client=` make. Raises Problem (404) for a client that is not visible."""
    visible = clients if session.client is None else {session.client: clients[session.client]}
    given = {name for name in query.getall("client", []) if name}
    chosen = session.client
    if given:
        chosen = _single(given)
        if chosen not in visible:
            raise not_found()
    elif len(visible) == 1:
        chosen = next(iter(visible))
    return Viewer(session, visible, chosen)


def _single(names: Iterable[str]) -> ClientName:
    first, *more = names
    if more:
        raise Problem("invalid_request", "client must not be repeated")
    return ClientName(first)
