"""The deployments of prefect.yaml on a server, as `xmore up` makes them, and users change them.

To deploy again sets schedules, parameters and the work pool back to what prefect.yaml says. So it
is done only if prefect.yaml is another, and a schedule that was active stays active.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import yaml

from xmore.files.digests import digest_of
from xmore.files.paths import PROJECT_ROOT, write_whole


def deploy(api: str, home: Path, run: Callable[[], None]) -> None:
    """Deploy by `run`, unless the server has all that prefect.yaml lists, as it is now.

    What was deployed is written to `home`.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    content = (PROJECT_ROOT / "prefect.yaml").read_text()
    names = {each["name"] for each in yaml.safe_load(content)["deployments"]}
    said = json.dumps({"api": api, "of": digest_of([content, str(PROJECT_ROOT)])})
    record = home / "deployed.json"
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        found = client.read_deployments()
        there = names <= {each.name for each in found}
        if there and record.exists() and record.read_text() == said:
            return
        active = {(each.name, one.slug) for each in found for one in each.schedules if one.active}
        run()
        for each in client.read_deployments():
            for one in each.schedules:
                if one.slug and (each.name, one.slug) in active and not one.active:
                    client.update_deployment_schedule(each.id, one.id, active=True)
    write_whole(record, said.encode())
