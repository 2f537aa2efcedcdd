"""Pushes an exported network to Hugging Face, with a model card of its own numbers."""

import re
from pathlib import Path

from dnnlib.files import file_sha256
from dnnlib.paths import user_path
from dnnlib.text import first_line
from dnnlib.urls import AddressError, load_hub
from metrics.results import read_rows
from training.checkpoint.snapshot import read_snapshot


def check_repo(repo: str) -> None:
    """Raise ValueError unless --hub names a repository and its package is installed."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo, re.ASCII):
        raise ValueError(f"--hub={repo}: write it as user/repository")
    load_hub(f"--hub={repo}")


def push(network: str, exported: Path, repo: str) -> str:
    """Upload an exported network, and a model card if the repository has none; return its address.

    A new repository is private. Raises AddressError.
    """
    hub = load_hub(f"--hub={repo}")
    api = hub.HfApi()
    try:
        address = str(api.create_repo(repo, private=True, exist_ok=True))
        files = [hub.CommitOperationAdd(exported.name, str(exported))]
        if not api.file_exists(repo, "README.md"):
            files.append(hub.CommitOperationAdd("README.md", model_card(network, exported, repo).encode()))
        api.create_commit(repo, files, commit_message=f"Upload {exported.name}")
    except Exception as error:  # of many classes, those of its HTTP library among them
        raise AddressError(f"--hub={repo}: the upload failed ({first_line(error)}); {exported} is complete") from error
    return address


def model_card(network: str, exported: Path, repo: str) -> str:
    """A short description of a network for people, in Markdown."""
    config, spec, values = read_snapshot(exported)
    parameters = sum(x.numel() for name, x in values["G_ema"].items() if x.is_floating_point())
    kimg = values["cur_nimg"] / 1000
    labels = f"vectors of length {spec.label_dim}" if spec.labels_are_vectors else f"{spec.label_dim} classes"
    facts = {
        "images": f"{spec.width}x{spec.height} px, {'grey' if spec.channels == 1 else 'RGB'}",
        "labels": labels if spec.label_dim else "none",
        "training": f"{kimg:g} kimg, batch {config.schedule.batch}" if kimg else "unknown",
        "generator": f"{config.generator.kind}, {parameters:,} numbers",
        "discriminator": config.discriminator.kind,
    }
    table = "\n".join([f"| {name} | {value} |" for name, value in facts.items()] + metric_table(user_path(network)))
    return f"""---
pipeline_tag: unconditional-image-generation
tags: [styleformer, gan]
---
# {repo.split("/")[1]}

{"A conditional" if spec.label_dim else "An unconditional"} GAN.

| | |
|---|---|
{table}

    python generate.py --network=hf://{repo}/{exported.name} --seeds=0-35 --outdir=out --grid
"""


def metric_table(snapshot: Path) -> list[str]:
    """The metrics of a snapshot, from metric-*.jsonl beside it, as lines of Markdown; none if there are none."""
    digest, lines = file_sha256(snapshot), []
    for path in sorted(snapshot.parent.glob("metric-*.jsonl")):
        rows = read_rows(snapshot.parent, path.stem.removeprefix("metric-"))
        for row in [row for row in rows if is_of(row, snapshot, digest)][-1:]:  # the newest
            value = "not finite" if row["value"] is None else f"{row['value']:.4g}"
            note = "" if row.get("comparable_to_published") else " (not comparable to published values)"
            lines.append(f"| {row['metric']} | {value}{note} | {row['num_gen']:,} | {row['num_real']:,} |")
    return ["", "| metric | value | generated images | real images |", "|---|---|---|---|", *lines] if lines else []


def is_of(row: dict[str, object], snapshot: Path, digest: str) -> bool:
    return row.get("snapshot_hash") == digest or (not row.get("snapshot_hash") and row.get("snapshot") == snapshot.name)
