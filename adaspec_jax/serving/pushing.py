"""An exported directory on the Hugging Face hub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from adaspec_jax.errors import UserError, first_line


def check_name(name: str) -> None:
    """UserError where the hub has no such names, or nobody here may write to it: said before anything is done."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"--push {name} is no name on the hub ({first_line(error)})") from None
    if name.count("/") != 1:
        raise UserError(
            f"--push {name} names no owner; give OWNER/{name}, your own name on the hub or an organisation's"
        )
    if not huggingface_hub.get_token():
        raise UserError("--push needs a token of the hub that may write; run `hf auth login`, or set HF_TOKEN")


def push(directory: Path, name: str, *, private: bool) -> str:
    """The address of the new repository that holds the directory's files.

    UserError where the hub has that name already, refuses, or cannot be reached; the directory stays as it is.
    """
    from huggingface_hub import HfApi

    api, stays = HfApi(), f"{directory} is whole and stays"
    with _in_one_line(name, stays, mend=f"the same by hand: hf upload {name} {directory}"):
        api.create_repo(name, private=private, exist_ok=False)
    with _in_one_line(name, stays, mend=f"{name} is there without them; go on with: hf upload {name} {directory}"):
        api.upload_folder(repo_id=name, folder_path=directory, commit_message="Exported by adaspec_jax")
    return f"{api.endpoint}/{name}"


@contextlib.contextmanager
def _in_one_line(name: str, stays: str, *, mend: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status == 409:
            raise UserError(f"{name} is on the hub already; {stays}: push it under another name") from None
        refused = "the hub refuses the token" if status in (401, 403) else "the hub refused"
        raise UserError(f"{refused} for {name} ({first_line(error)}); {stays}; {mend}") from None
    except Exception as error:  # of the client, its HTTP library or the network
        raise UserError(f"the hub cannot be reached for {name} ({first_line(error)}); {stays}; {mend}") from None
