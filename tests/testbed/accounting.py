"""Slurm's accounts of one bed: slurmdbd and a MariaDB of its own, both on the submit side."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.testbed import slurmfiles
from tests.testbed.requirements import TestbedError, call, tool

if TYPE_CHECKING:
    from pathlib import Path

    from tests.testbed.slurm import Slurm

ACCOUNT = "research"
"""The account that all users of the bed have."""


@dataclass(frozen=True, kw_only=True)
class Accounting:
    """Database and slurmdbd of a cluster."""

    slurm: Slurm

    @property
    def _data(self) -> Path:
        return self.slurm.folder / "database"

    def configure(self) -> None:
        """Write slurmdbd.conf, which only root may read, and the database's first statements."""
        slurm, password = self.slurm, secrets.token_hex(16)
        address = slurm.network.submit_address
        port, database_port = slurmfiles.database_ports(slurm.network)
        conf = slurm.conf.with_name("slurmdbd.conf")
        conf.touch(mode=0o600)
        conf.write_text(
            "AuthType=auth/munge\n"
            f"AuthInfo=socket={slurm.folder}/munge.socket\n"
            f"DbdHost=submit\nDbdAddr={address}\nDbdPort={port}\nSlurmUser=root\n"
            f"LogFile={slurm.folder}/slurmdbd.log\nPidFile={slurm.folder}/slurmdbd.pid\n"
            "StorageType=accounting_storage/mysql\n"
            f"StorageHost={address}\nStoragePort={database_port}\nStorageLoc=slurm\n"
            f"StorageUser=slurm\nStoragePass={password}\n"
        )
        first = self.slurm.folder / "database.sql"
        first.touch(mode=0o600)
        first.write_text(
            "CREATE DATABASE IF NOT EXISTS slurm;\n"
            f"CREATE USER IF NOT EXISTS 'slurm'@'%' IDENTIFIED BY '{password}';\n"
            "GRANT ALL ON slurm.* TO 'slurm'@'%';\n"
        )

    def start(self) -> None:
        """Start the database, then slurmdbd, and tell it of cluster, account and users."""
        self._start_database()
        slurm, port = self.slurm, slurmfiles.database_ports(self.slurm.network)[0]
        line = [*slurm.submit_side(["hostname", "submit"]), tool("slurmdbd"), "-D"]
        slurm.services.start("slurmdbd", line, slurm.env)
        slurm.services.await_that("slurmdbd", lambda: self._listens(port))
        self._add_users()

    def _start_database(self) -> None:
        slurm, port = self.slurm, slurmfiles.database_ports(self.slurm.network)[1]
        where = ["--no-defaults", f"--datadir={self._data}", "--user=root"]
        call(["mariadb-install-db", *where, "--skip-test-db", "--auth-root-authentication-method=socket"])
        # Nothing here has to outlive a power failure: no flush to the disk at every commit.
        words = [f"--socket={slurm.folder}/database.socket", f"--pid-file={slurm.folder}/database.pid"]
        words += [f"--bind-address={slurm.network.submit_address}", f"--port={port}", "--skip-name-resolve"]
        words += [f"--init-file={slurm.folder}/database.sql", "--innodb-flush-log-at-trx-commit=0"]
        words += ["--innodb-lock-wait-timeout=900", "--innodb-buffer-pool-size=64M"]
        slurm.services.start("mariadbd", [tool("mariadbd"), *where, *words])
        slurm.services.await_that("mariadbd", lambda: self._listens(port))

    def _listens(self, port: int) -> bool:
        try:
            socket.create_connection((self.slurm.network.submit_address, port), 1).close()
        except OSError:
            return False
        return True

    def _add_users(self) -> None:
        """Give every user of the bed the account `research`."""
        slurm, cluster = self.slurm, self.slurm.network.name
        self._change("cluster", cluster)
        self._change("account", ACCOUNT, f"cluster={cluster}", "description=tests", "organization=tests")
        users = ",".join(slurm.users)
        self._change("user", users, f"account={ACCOUNT}", f"cluster={cluster}", f"defaultaccount={ACCOUNT}")

    def _change(self, *words: str) -> None:
        done = self.slurm.run("sacctmgr", "--immediate", "add", *words)
        if done.returncode:
            raise TestbedError(f"sacctmgr add {' '.join(words)}: {done.stdout}{done.stderr}")
