"""Start the inspection API: `xray-vqa serve`."""

import argparse
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from xray_vqa.core.manifest import hide_credentials
from xray_vqa.errors import ConfigError

EPILOG = """\
examples:
  xray-vqa serve                                          the model of outputs/qwen25vl_stcray_lora, else nano
  xray-vqa serve --model nano --port 8081
  xray-vqa serve --model outputs/qwen25vl_stcray_lora --policy our_policy.yaml --device cuda:0
  XRAY_VQA_TIMEOUT_S=3 XRAY_VQA_QUEUE_SIZE=8 xray-vqa serve
  xray-vqa serve --engine scripted --model readings.json  answers from a script, for trials without a model
  xray-vqa serve --engine openai --server-url http://localhost:8000/v1 --model outputs/merged    a vLLM server's model

Each option has a variable, XRAY_VQA_HOST for --host; the option wins. The page /docs describes the API and works
without internet. /health answers at once; /ready says 503 until the model is loaded, and meanwhile every scan is
answered with manual_inspection. Each answer is in the audit store (XRAY_VQA_DATABASE_URL, by default
outputs/audit.sqlite3) before it goes out; the same scan_id again gets the same answer. `xray-vqa audit` looks after
the store. On SIGTERM what is in work is finished first.

Without a key it runs open, for the programs of this machine alone. The first `xray-vqa keys create` closes it: from
then on every address but /health and /ready asks for `Authorization: Bearer KEY`. On another address than this
machine's own nobody gets in without a key, and --profile production does not start without one. docs/SECURITY.md
tells more.
"""

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa serve`."""
    parser.add_argument("--model", metavar="NAME", help="nano, a folder with weights or an adapter, or a hub name")
    parser.add_argument("--adapter", metavar="DIR", help="a LoRA adapter for the model")
    parser.add_argument(
        "--engine",
        metavar="NAME",
        help="transformers (default), openai (a server's model; --model is the folder that it loaded), vllm (in this "
        "process), scripted (--model is a JSON file); docs/ENGINES.md says which one when",
    )
    parser.add_argument("--server-url", metavar="URL", help="for openai, for instance http://localhost:8000/v1")
    parser.add_argument("--server-model", metavar="NAME", help="for openai: the model's name there, if it has several")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 (default: the first GPU, else the CPU)")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="the rules (default: configs/policy.yaml)")
    parser.add_argument("--host", metavar="ADDRESS", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", metavar="NUMBER", help="port to listen on, 0 for a free one (default: 8080)")
    parser.add_argument(
        "--database-url", metavar="URL", help="the audit store (default: sqlite:///outputs/audit.sqlite3)"
    )
    parser.add_argument(
        "--profile", metavar="NAME", help="trial (default), or production, which never runs open (docs/SECURITY.md)"
    )
    parser.add_argument("--timeout-s", metavar="SECONDS", help="after it a scan goes to a person (default: 10)")
    parser.add_argument("--queue-size", metavar="COUNT", help="scans that may wait for the model (default: 32)")
    parser.add_argument("--max-batch", metavar="COUNT", help="waiting scans that the model gets at once (default: 1)")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal. Raises ConfigError before anything is started."""
    from xray_vqa.config.loading import load_policy, require
    from xray_vqa.config.serve import load_settings

    for package in (
        "fastapi",
        "uvicorn",
        "prometheus_client",
        "sqlalchemy",
        "alembic",
        "cryptography",
        "fastapi_offline",
        "jwt",
        "limits",
    ):
        require(package, extra="serve")
    options = ("model", "adapter", "engine", "server_url", "server_model", "device", "policy", "host", "port",
               "database_url", "timeout_s", "queue_size", "max_batch", "profile")  # fmt: skip
    settings = load_settings(**{name: getattr(args, name) for name in options})
    policy = load_policy(settings.policy)

    import uvicorn

    from xray_vqa.core.policy.stop import StopSwitch
    from xray_vqa.inference.engines import open_engine
    from xray_vqa.inference.inspector import Inspector
    from xray_vqa.serving.app import create_app
    from xray_vqa.serving.store.audit import AuditUnavailable

    engine = open_engine(
        settings.engine, settings.model, adapter=settings.adapter, device=settings.device, settings=settings
    )
    listener = _listen(settings.host, settings.port)
    app = create_app(settings, Inspector(engine, policy, stop=StopSwitch(settings.stop_file)))
    with suppress(AuditUnavailable):  # then /ready says so until it can be reached
        app.state.service.store.open()
    app.state.identity.check_start()
    config = uvicorn.Config(
        app,
        log_config=None,  # ours is set up by cli.main
        access_log=False,  # serving.middleware writes a line a request, without scan ids
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        server_header=False,
        timeout_graceful_shutdown=round(settings.drain_s),
    )
    address = _address_of(listener)
    logger.info(
        "listening on %s (API page: %s/docs), audit store %s", address, address, hide_credentials(settings.database_url)
    )
    # uvicorn drains on SIGTERM and then raises the signal again, which this turns into exit code 0.
    signal.signal(signal.SIGTERM, _exit_done)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        if not app.state.stopped_cleanly:
            logger.error("the model was still at work after %g s; leaving without it", settings.drain_s)
            sys.stderr.flush()
            os._exit(0)  # a thread inside a kernel cannot be ended, and would crash the interpreter's own exit
    return 0


def _exit_done(signum: int, frame: object) -> NoReturn:
    raise SystemExit(0)


def _listen(host: str, port: int) -> socket.socket:
    """Return a bound socket. Raises ConfigError where the address is taken or not this machine's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}; `lsof -i :{port}` names who has it, "
            "--port takes another"
        ) from error
    return listener


def _address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
