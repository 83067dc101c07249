"""Whether the Hugging Face Hub answers, found out in seconds.

The hub's own client tries for almost half a minute before it gives up.
"""

import os
import ssl
import threading
import urllib.error
import urllib.request

PROBE_SECONDS = 4.0


def settle_hub_access(seconds: float = PROBE_SECONDS) -> None:
    """Switch the hub's client to its local cache if the hub does not answer in `seconds`.

    To be called before the first import of a Hugging Face library: they read the setting then.
    """
    if "HF_HUB_OFFLINE" not in os.environ and not hub_answers(seconds):
        os.environ["HF_HUB_OFFLINE"] = "1"


def hub_answers(seconds: float = PROBE_SECONDS) -> bool:
    """True if the hub, or the mirror in `HF_ENDPOINT`, answers anything at all."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    answered = threading.Event()
    # In a thread because a name server that does not answer heeds no socket timeout.
    probe = threading.Thread(target=_probe, args=(endpoint, seconds, answered), daemon=True)
    probe.start()
    probe.join(seconds)
    return answered.is_set()


def _probe(endpoint: str, seconds: float, answered: threading.Event) -> None:
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        with urllib.request.urlopen(request, timeout=seconds):
            answered.set()
    except urllib.error.HTTPError:
        answered.set()  # an answer, if not a friendly one
    except urllib.error.URLError as error:
        # The hub's client brings certificates of its own: let it decide.
        if isinstance(error.reason, ssl.SSLError):
            answered.set()
    except (OSError, ValueError):
        return
