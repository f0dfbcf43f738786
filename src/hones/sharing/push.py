"""Upload an export to the hub: only what hones wrote, nothing else that lies in the folder."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id
from rich.filesize import decimal

from hones.errors import HonesError, cause, seam
from hones.files import sha256_of
from hones.sharing.base import LICENSE_FILES
from hones.sharing.manifest import CARD, MANIFEST, read_manifest
from hones.sharing.tables import files_table
from hones.tabular import Table, Tabular

SUFFIXES = (".safetensors", ".json", ".md", ".jinja", ".model", ".txt")


@dataclass(frozen=True)
class Upload(Tabular):
    """What would be, or was, uploaded: the files with their sizes in bytes, and the commit's address where it was."""

    folder: Path
    repo: str
    private: bool
    sizes: dict[str, int]
    url: str | None = None

    def tables(self) -> list[Table]:
        """The files with their sizes, and the repository."""
        title = f"{self.folder} to {'private ' if self.private else ''}{self.repo}"
        return [files_table(title, self.sizes, f"{decimal(sum(self.sizes.values()))} in all")]


def push_export(
    folder: str | Path, repo: str, *, yes: bool = False, private: bool = False, token_from_env: str | None = None
) -> Upload:
    """Upload an export; without `yes` say only what would be uploaded.

    Args:
        repo: USER/REPO; created if need be.
        private: of a new repository.
        token_from_env: the environment variable with the token; default: huggingface_hub's own login.

    Raises:
        HonesError: not an export, other or changed files in it, a bad repository name, no token, or the hub's refusal.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    present = {path.name: path for path in folder.iterdir()}
    for name in sorted({*present, *manifest.files, MANIFEST}):
        if name not in present:
            raise HonesError(f"{folder} lacks {name}", expected="every file of the export", do="export again")
        if name not in manifest.files and name != MANIFEST:
            raise HonesError(f"{folder} holds {name}, which hones did not write", expected="an export alone")
        path = present[name]
        if path.is_symlink() or not path.is_file() or not (path.suffix in SUFFIXES or name in LICENSE_FILES):
            raise HonesError(f"{path} is not a kind of file that an export holds", expected=", ".join(SUFFIXES))
        if name not in (CARD, MANIFEST) and sha256_of(path) != manifest.files[name]:  # the card may be edited
            raise HonesError(f"{path} has changed since the export", do="export again")
    try:
        validate_repo_id(repo)
        _user, _name = repo.split("/")
    except ValueError as error:
        raise HonesError(f"no repository name: {repo!r}", expected="USER/REPO") from error
    token = None if token_from_env is None else os.environ.get(token_from_env, "").strip()
    if token == "":
        raise HonesError(f"the environment variable {token_from_env} is empty", expected="a token for the hub")
    upload = Upload(folder, repo, private, {name: present[name].stat().st_size for name in sorted(present)})
    if not yes:
        return upload
    api = HfApi(token=token)
    try:
        with seam(f"send {folder} to the hub"):
            api.create_repo(repo, private=private or None, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                allow_patterns=[*upload.sizes],
                commit_message=f"hones export: {manifest.format}",
            )
    except HonesError as error:
        problem = error.__cause__ or error
        if isinstance(problem, LocalTokenNotFoundError):
            raise HonesError("no token for the hub", do="run `hf auth login`, or pass --token-from-env") from problem
        raise HonesError(f"the hub did not take {repo} ({cause(problem)})", do="see the token's rights") from problem
    return replace(upload, url=str(commit.commit_url))
