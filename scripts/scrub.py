"""Scrub a data set into audited shards that training reads.

usage: python scripts/scrub.py source=FORMAT source.path=PATH output=DIR [policy=NAME] [KEY=VALUE]
       python scripts/scrub.py source=FORMAT source.path=PATH preview=20 [policy=NAME] [sheet=FILE]
       python scripts/scrub.py verify=DIR
       python scripts/scrub.py forget=HASH|FILE output=DIR [runs=runs]

examples:
  python scripts/scrub.py source=folder source.path=photos output=data/photos policy=photos
  python scripts/scrub.py source=easy_vqa source.split=test output=data/easy-vqa-test backend=ray

A record that cannot be cleaned is left out, named on stderr by its number and reason, and counted.
The same command goes on where a run was stopped or killed. conf/scrub.yaml lists the other keys.
Exit status: 0 all records are in the shards, 1 some were left out, 2 nothing was done.
"""

import sys
from pathlib import Path
from typing import Any

CONF = Path(__file__).resolve().parent.parent / "conf"


def main(arguments: list[str]) -> int:
    """Compose the configuration and do what it says."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__, end="")
        for group, name in (("source", "source"), ("privacy", "policy")):
            print(f"{name}: {', '.join(sorted(path.stem for path in (CONF / group).glob('*')))}")
        return 0 if arguments else 2

    from mm.report import scrubbing

    if any(word.startswith("verify=") for word in arguments):
        return scrubbing.told("scrub", lambda: scrubbing.verify(arguments))
    if any(word.startswith("forget=") for word in arguments):
        return scrubbing.told("scrub", lambda: scrubbing.forget_and_list(arguments))
    return scrubbing.told("scrub", lambda: scrubbing.job(*composed(arguments)))


def composed(arguments: list[str]) -> tuple[dict[str, Any], Any, Any]:
    """Compose conf/scrub.yaml; return it as plain data, with the source and the policy made."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from mm.errors import MMError, UsageError
    from mm.privacy.errors import PrivacyError

    words = [f"privacy@{word}" if word.startswith("policy=") else word for word in arguments]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("scrub", words)
        if config.preview is not None and OmegaConf.is_missing(config, "output"):
            config.output = None
        if missing := sorted(OmegaConf.missing_keys(config)):
            raise UsageError(f"say what {missing[0]} is: {missing[0]}=..., see --help")
        made = instantiate(config.source), instantiate(config.policy)
    except (HydraException, OmegaConfBaseException) as error:
        if isinstance(error.__cause__, MMError | PrivacyError):
            raise error.__cause__ from None
        raise UsageError(str(error)) from None
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}, *made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
