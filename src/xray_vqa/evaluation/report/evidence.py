"""What was measured, kept in the model's own folder: who gets the model gets its evidence, and for which weights."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from xray_vqa.core.jsonl import replacing
from xray_vqa.core.manifest import Manifest, sha256_file, write_manifest
from xray_vqa.errors import ModelUnavailable
from xray_vqa.evaluation.results import EvaluationResults

logger = logging.getLogger(__name__)

EVIDENCE_DIR = "evaluation"
_PACKAGE = Path(__file__).resolve().parents[2]


def write_evidence(
    model: str, results: EvaluationResults, files: Mapping[str, Path], manifest: Manifest
) -> Path | None:
    """Copy result files into `<model>/evaluation/`, with a manifest that binds them to the weights measured.

    Args:
        model: As the command named it.
        results: What was measured.
        files: What is kept, by its name in the folder.
        manifest: Of the evaluation.

    Returns:
        The folder; None where the model is no folder of the user's (a hub name, what ships with the package, a folder
        that cannot be written or holds other weights), and that
        is logged: evidence beside the model is not what the run was for.
    """
    home = Path(model)
    if not (home / "config.json").is_file() and not (home / "adapter_config.json").is_file():
        return None
    if home.resolve().is_relative_to(_PACKAGE):
        return None
    folder = home / EVIDENCE_DIR
    identity = results.scored.identity
    from xray_vqa.modeling.loading import digest_of  # torch

    try:
        if digest_of(home) != (identity.adapter_digest or identity.model_digest):
            logger.warning("%s: other weights than were measured, so no evidence is kept there", home)
            return None
        for name, path in files.items():
            with path.open("rb") as source, replacing(folder / name) as target:
                shutil.copyfileobj(source, target)
        bound = {"model_digest": identity.model_digest, "adapter_digest": identity.adapter_digest}
        outputs = {name: sha256_file(folder / name) for name in files}
        write_manifest(folder, manifest.model_copy(update={"outputs": outputs, "checks": {**manifest.checks, **bound}}))
    except ModelUnavailable as error:
        logger.warning("%s: no evidence beside the model (%s)", folder, error)
        return None
    except OSError as error:
        logger.warning("%s: no evidence beside the model (%s)", folder, error.strerror)
        return None
    return folder
