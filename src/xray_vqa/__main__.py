"""`python -m xray_vqa` is the command `xray-vqa`."""

from xray_vqa.cli.main import main

raise SystemExit(main())
