"""The key of an audit store: it seals rows and signs checkpoints, and its public half lets others check the latter."""

import hashlib
import hmac
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from xray_vqa.core.records import Strict
from xray_vqa.errors import ConfigError
from xray_vqa.serving.store.chain import Head, canonical, now


class Checkpoint(Strict):
    """A signed statement: the chain had this row, with this hash. The row behind it holds the statement."""

    sequence: int
    row_hash: str
    made_at: str
    key_id: str
    signature: str = ""

    def statement(self) -> bytes:
        """Return the bytes that are signed."""
        return b"xray-vqa checkpoint\n" + canonical(self.model_dump(exclude={"signature"})).encode()


class PublicKey:
    """Checks checkpoints; makes none."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.raw_hex = key.public_bytes_raw().hex()
        self.key_id = hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]

    @classmethod
    def read(cls, path: Path) -> "PublicKey":
        """Return the key in a PEM file. Raises ConfigError."""
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: no public key can be read from it: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigError(f"{path}: not an Ed25519 key")
        return cls(key)

    def signed(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint was signed with this key."""
        try:
            self._key.verify(bytes.fromhex(checkpoint.signature), checkpoint.statement())
        except (InvalidSignature, ValueError):
            return False
        return checkpoint.key_id == self.key_id


class SigningKey(PublicKey):
    """Seals rows and signs checkpoints. All servers of one store have the same."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        super().__init__(key.public_key())
        self._private = key
        self._sealing = hashlib.sha256(b"xray-vqa seal\n" + key.private_bytes_raw()).digest()

    @classmethod
    def load(cls, path: Path) -> "SigningKey":
        """Return the key in a PEM file. Raises ConfigError."""
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{path}: no key can be read from it: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"{path}: not an Ed25519 key")
        return cls(key)

    @classmethod
    def load_or_make(cls, path: Path) -> "SigningKey":
        """Return the key in a file. Where there is none it is made, for its owner's eyes, with its public half beside.

        Raises:
            ConfigError: The file holds no key.
            OSError: It cannot be written.
        """
        if path.exists():
            return cls.load(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        made = cls(Ed25519PrivateKey.generate())
        pem = made._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # Under a name of its own and then linked: of two servers that start at once, both go on with the first one's.
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(pem)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return cls.load(path)
        finally:
            temporary.unlink()
        public = made._key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        public_key_path(path).write_bytes(public)
        return made

    def seal(self, row_hash: str) -> str:
        """Return what only the holder of the key can write beside a row's hash."""
        return hmac.digest(self._sealing, row_hash.encode(), "sha256").hex()

    def sign(self, head: Head) -> Checkpoint:
        """Return a signed checkpoint of a head."""
        checkpoint = Checkpoint(sequence=head.sequence, row_hash=head.row_hash, made_at=now(), key_id=self.key_id)
        return checkpoint.model_copy(update={"signature": self._private.sign(checkpoint.statement()).hex()})


def public_key_path(key_path: Path) -> Path:
    """Return where the public half of a key file stands."""
    return key_path.with_name(f"{key_path.name}.pub")
