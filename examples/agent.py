"""An agent in Python that keeps to what an API tells about its limits. Standard library only, Python 3.9 or newer.

    node --import tsx examples/minimal.ts                      an API to try it on
    python3 examples/agent.py http://localhost:3000/ 20        asks it 20 times at once

It does the least that a well-behaved agent has to do:

- before it is refused, it waits when `RateLimit` says that nothing is left, once for all its threads;
- refused, it comes back when it was told: retry-after-ms, else Retry-After in seconds or as a date;
- it shows the ticket it was given, once, and to the server that gave it;
- it sends again only what may be sent twice, and no more often than its budget allows;
- it waits no longer than `max_wait`: what asks for more is handed back as it came.
"""

import email.utils
import json
import random
import re
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}  # RFC 9110 section 9.2.2

# A List of Strings with parameters (RFC 9651): what does not match as a whole is ignored as a whole.
STRING = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
B64 = "[A-Za-z0-9+/]"
NUMBER = r"-?\d{1,12}\.\d{1,3}|-?\d{1,15}"
TOKEN = r"[A-Za-z*][\w!#$%&'*+.^`|~:/-]*"
VALUE = rf"(?:{STRING}|:(?:{B64}{{4}})*(?:{B64}{{2}}(?:==)?|{B64}{{3}}=?)?:|{NUMBER}|\?[01]|{TOKEN})"
PARAMETERS = rf"(?:; *[a-z*][a-z0-9_.*-]*(?:={VALUE})?)*"
MEMBER = rf"{STRING}{PARAMETERS}"
LIST = re.compile(rf" *{MEMBER}(?:[ \t]*,[ \t]*{MEMBER})*[ \t]*", re.ASCII)


def read_list(field):
    """The members of a field by name, each with its integer parameters; nothing where it is malformed."""
    if field is None or len(field) > 8192 or not LIST.fullmatch(field):
        return {}
    members = {}
    for name, parameters in re.findall(rf"({STRING})({PARAMETERS})", field, re.ASCII):
        integers = re.findall(rf"; *([a-z*][a-z0-9_.*-]*)(?:=({VALUE}))?", parameters, re.ASCII)
        members[name] = {key: int(value) for key, value in integers if is_number(value)}
    return members


def read_limit(headers):
    """Of the limit nearest its end: what is left, for how many seconds, and the policy's pace in seconds a request."""
    policies = read_list(headers.get("RateLimit-Policy"))
    limits = []
    for name, told in read_list(headers.get("RateLimit")).items():
        if "r" in told and "t" in told:
            policy = policies.get(name, {})
            gap = policy["w"] / policy["q"] if policy.get("q") and policy.get("w") else 1.0
            limits.append((told["r"], told["t"], gap))
    if limits:
        # With nothing left of several, the one that takes longest.
        return min(limits, key=lambda limit: (limit[0], -limit[1]))
    left, reset = headers.get("RateLimit-Remaining", ""), headers.get("RateLimit-Reset", "")
    return (int(left), int(reset), 1.0) if is_number(left) and is_number(reset) else None


def read_wait(headers):
    """How many seconds a refusal asks for, and whether it says so to the millisecond; nothing where it does not."""
    milliseconds, after = headers.get("retry-after-ms", ""), headers.get("Retry-After", "")
    if is_number(milliseconds):
        return float(milliseconds) / 1000, True
    if is_number(after):
        return float(after), False
    try:
        moment = email.utils.parsedate_to_datetime(after)
        # The server's own clock, so that ours may be wrong.
        now = email.utils.parsedate_to_datetime(headers["Date"]) if headers.get("Date") else None
        return max(0.0, moment.timestamp() - (now.timestamp() if now else time.time())), False
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def is_number(text):
    return re.fullmatch(r"[0-9]{1,300}", text) is not None


class Redirects(urllib.request.HTTPRedirectHandler):
    """A ticket is spent where it was shown, and credentials are for one server."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None:
            following.headers.pop("Ratelimit-ticket", None)
            if origin_of(newurl) != origin_of(req.full_url):
                for name in ("Authorization", "Cookie", "X-api-key", "Dpop"):
                    following.headers.pop(name, None)
        return following


def origin_of(url):
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


class Pace:
    """What all threads know of one server, and when the next of them may start."""

    def __init__(self):
        self.lock = threading.Lock()
        self.left = None  # not told yet
        self.ends = 0.0
        self.gap = 1.0
        self.next_start = 0.0
        self.under_way = 0
        self.heard_at = 0.0

    def start(self, due=None, reserved=False, max_wait=60.0):
        """Takes the next place and returns when it is; of `due` it is never earlier. A ticket has its place already."""
        with self.lock:
            now = time.monotonic()
            at = max(now, due or 0.0)
            if not reserved and self.left is not None and self.left <= self.under_way:
                if due is None and self.left == 0:
                    at = max(at, self.ends)
                at = max(at, self.next_start)
                # Whoever would wait too long asks now: the answer says more.
                at = at if at - now <= max_wait else now
                self.next_start = at + self.gap
            self.under_way += 1
            return at

    def hear(self, headers, sent_at, answered=True):
        with self.lock:
            self.under_way -= 1
            now = time.monotonic()
            if not answered or headers.get("Age") is not None:  # from a cache: not believed
                return
            limit = read_limit(headers)
            if limit is None:
                return
            left, seconds, gap = limit
            if sent_at < self.heard_at and self.left is not None and left > self.left:
                return  # older than what is known
            self.left, self.gap, self.ends, self.heard_at = left, gap, now + seconds, now


class Agent:
    def __init__(self, max_wait=60.0, on_wait=None, retries_per_call=8, retries_reserved=10, retries_share=0.2):
        self.max_wait = max_wait
        self.on_wait = on_wait or (lambda url, seconds: None)
        self.retries_per_call = retries_per_call
        self.retries_left = retries_reserved
        self.retries_share = retries_share
        self.paces = {}
        self.lock = threading.Lock()
        self.opener = urllib.request.build_opener(Redirects)

    def request(self, url, method="GET", headers=None, body=None):
        """Returns (status, headers, body): of the last answer, if that was a refusal."""
        headers = dict(headers or {})
        with self.lock:
            if len(self.paces) > 64:
                self.paces.clear()
            pace = self.paces.setdefault(origin_of(url), Pace())
        may_repeat = method in IDEMPOTENT or any(name.lower() == "idempotency-key" for name in headers)
        due, ticket, sent_again = None, None, 0
        while True:
            at = pace.start(due, ticket is not None, self.max_wait)
            self.sleep_until(at, url)
            sent_at = time.monotonic()
            answered = False
            told = {}
            try:
                shown = {"RateLimit-Ticket": ticket} if ticket is not None else {}
                request = urllib.request.Request(url, body, {**headers, **shown}, method=method)
                try:
                    response = self.opener.open(request, timeout=60)
                except urllib.error.HTTPError as error:
                    response = error
                with response:
                    status, told, content = response.status, response.headers, response.read()
                # Where a redirect led elsewhere, it is another server that speaks.
                answered = origin_of(response.url) == origin_of(url)
            finally:
                pace.hear(told, sent_at, answered)
            wait = self.wait_of(status, told, sent_again) if answered else None
            if wait is None:
                self.earn()
                return status, told, content
            seconds, was_told = wait
            if not may_repeat or seconds > self.max_wait or not self.may_retry(sent_again, was_told):
                return status, told, content
            offered = told.get("RateLimit-Ticket", "")
            ticket = offered if re.fullmatch(r"[\x21-\x7e]{1,4096}", offered) else ticket
            due = time.monotonic() + seconds
            sent_again += 1

    def wait_of(self, status, headers, sent_again):
        """(seconds, whether the server said so) of a refusal; nothing of any other answer."""
        if headers.get("Age") is not None:
            return None
        told = read_wait(headers) if status in (429, 503) else None
        if told is not None and told[0] > 0:
            seconds, exact = told
            # Everybody was told the same second, so it may as well be a bit later.
            return (seconds if exact else seconds + random.uniform(0, min(1, seconds / 2))), True
        return (2**sent_again * random.uniform(0.5, 1), False) if status == 429 else None

    def may_retry(self, sent_again, was_told):
        if sent_again >= self.retries_per_call:
            return False
        if sent_again == 0 and was_told:
            return True
        with self.lock:
            if self.retries_left < 1:
                return False
            self.retries_left -= 1
            return True

    def earn(self):
        with self.lock:
            self.retries_left = min(self.retries_left + self.retries_share, 100)

    def sleep_until(self, at, url):
        seconds = at - time.monotonic()
        if seconds <= 0:
            return
        self.on_wait(url, seconds)
        while seconds > 0:
            time.sleep(seconds)
            seconds = at - time.monotonic()


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    url, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10
    waits = []
    agent = Agent(on_wait=lambda _, seconds: waits.append(seconds))
    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=min(count, 64)) as threads:
        statuses = [status for status, _, _ in threads.map(lambda _: agent.request(url), range(count))]
    print(
        json.dumps(
            {
                "served": sum(status < 400 for status in statuses),
                "refused": sum(status in (429, 503) for status in statuses),
                "waits": len(waits),
                "longest_wait": round(max(waits, default=0), 3),
                "seconds": round(time.monotonic() - started, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
