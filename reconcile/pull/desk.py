"""Whole listings: every page of one, checked before it is kept."""

from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import count

from reconcile.pull.client import Call, Client, RefusedError, Reply, parse
from reconcile.pull.folder import Folder
from reconcile.pull.pages import Listing, MalformedError, Page, Report, instant, list_page, report_page

_MOST_PAGES = 10_000
_TOKEN_REFUSED = frozenset({400, 404, 410})


class Desk:
    """Gets pages: from the folder where an earlier attempt kept them, else from the API; checks, then keeps them."""

    def __init__(self, client: Client, folder: Folder | None = None) -> None:
        self._client = client
        self._folder = folder

    def stored(self, call: Call) -> Reply | None:
        """The page as the folder holds it."""
        url = self._client.url(call)
        found = self._folder.stored(call, url) if self._folder else None
        if found is None:
            return None
        kept, content = found
        body = parse(content)
        if not isinstance(body, dict):
            return None
        at = datetime.fromisoformat(kept.fetched_at)
        return Reply(call, url, content, body, kept.status, kept.request_id, at)

    def keep(self, reply: Reply) -> None:
        """Write a page that was found good."""
        if self._folder:
            self._folder.keep(reply)

    def report(self, report: Report) -> None:
        """All pages of a report. Raises ``MalformedError`` unless every bucket of the range is there exactly once."""
        seen: set[str] = set()
        for _, page in self._chain(report, lambda reply: report_page(report, reply)):
            seen.update(page.parts)
        missing = [at for at in map(instant, report.buckets()) if at not in seen]
        if missing:
            self._forget(report.stem)
            every = sum(1 for _ in report.buckets())
            raise MalformedError(
                f"{report.stem} (GET {self._client.url(report.call(1, None))})",
                f"{len(missing)} of {every} buckets are missing, the first is {missing[0]}",
            )

    def listing(self, listing: Listing) -> list[Reply]:
        """All pages of a list."""
        return [reply for reply, _ in self._chain(listing, list_page)]

    def one(self, call: Call) -> Reply:
        """A page that stands alone."""
        reply = self.stored(call)
        if reply is None:
            reply = self._client.get(call)
            self.keep(reply)
        return reply

    def _chain(self, listing: Report | Listing, read: Callable[[Reply], Page]) -> list[tuple[Reply, Page]]:
        """The pages of a listing, in order. A page token that is refused (it may be too old) starts it over, once."""
        for last_chance in (False, True):
            chain: list[tuple[Reply, Page]] = []
            try:
                for reply, page in self._walk(listing, read):
                    chain.append((reply, page))
            except MalformedError:
                self._forget(listing.stem)
                raise
            except RefusedError as refusal:
                if last_chance or not chain or refusal.status not in _TOKEN_REFUSED:
                    raise
                self._forget(listing.stem)
            else:
                return chain
        raise AssertionError("unreachable")

    def _walk(self, listing: Report | Listing, read: Callable[[Reply], Page]) -> Iterator[tuple[Reply, Page]]:
        token: str | None = None
        tokens: set[str] = set()
        parts: set[str] = set()
        for number in count(1):
            call = listing.call(number, token)
            stored = self.stored(call)
            reply = stored or self._client.get(call)
            page = read(reply)
            if page.token in tokens:
                raise MalformedError(reply.where, f"the page token {page.token!r:.80} comes a second time")
            for part in page.parts:
                if part in parts:
                    raise MalformedError(reply.where, f"{part} comes a second time")
                parts.add(part)
            if stored is None:
                self.keep(reply)
            yield reply, page
            if page.token is None:
                return
            if number >= _MOST_PAGES:
                raise MalformedError(reply.where, f"there are more than {_MOST_PAGES} pages")
            token = page.token
            tokens.add(token)

    def _forget(self, stem: str) -> None:
        if self._folder:
            self._folder.forget(stem)
