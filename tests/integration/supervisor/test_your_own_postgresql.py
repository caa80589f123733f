"""A PostgreSQL that somebody else runs: migrated by an owner who may make roles, then served from."""

import json
from urllib.parse import quote

import pytest

from app.cli.doctor_database import database_findings
from app.cli.findings import Level
from app.db.embedded.postmaster import PORT
from app.db.embedded.server import EmbeddedPostgres
from app.db.privileges import DatabaseRole
from app.errors import ConfigurationError
from app.settings import Settings
from app.supervisor.database import EmbeddedDatabase, ExternalDatabase, open_database
from app.supervisor.role_file import FILE_NAME
from tests.integration.db.test_embedded import temporary_home
from tests.support.database import SPEEDY, execute

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def owner_url():
    """A server with nothing of Turnout on it but an empty database and its owner, who may make roles and is no superuser."""
    with temporary_home(0o711) as folder:
        server = EmbeddedPostgres(folder, SPEEDY)
        server.start()
        admin = server._superuser_url()
        try:
            execute(admin, "drop database turnout")
            for role in DatabaseRole:
                execute(admin, f"drop role {role}")
            execute(admin, "create role boss login createrole password 'p'")
            execute(admin, "create database yours owner boss")
            yield f"postgresql://boss:p@/yours?host={quote(str(server._found.sockets), safe='/')}&port={PORT}"
        finally:
            server.stop()


def test_turnout_migrate_makes_the_other_roles_and_the_service_then_needs_no_owner(tmp_path, owner_url):
    as_owner = Settings.from_env({"TURNOUT_HOME": str(tmp_path), "TURNOUT_DATABASE_OWNER_URL": owner_url})
    without = Settings.from_env({"TURNOUT_HOME": str(tmp_path)})
    assert isinstance(open_database(without), EmbeddedDatabase)
    with pytest.raises(ConfigurationError, match="run turnout migrate, which makes the roles"):
        open_database(as_owner).start()

    open_database(as_owner).migrate()
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o077 == 0
    urls = open_database(as_owner).start()

    # From now on this server is the home's database: an embedded one beside it would be empty.
    assert isinstance(open_database(without), ExternalDatabase)
    assert open_database(without).start() == urls
    assert list(json.loads((tmp_path / FILE_NAME).read_text()).values()) == [urls.runtime, urls.log, urls.sync]
    assert execute(urls.runtime, "select current_user, current_database()")[0] == ("turnout_runtime", "yours")

    open_database(as_owner).migrate()  # again: nothing to do, and no new passwords
    assert open_database(without).start() == urls
    found = list(database_findings(without))
    assert [f.level for f in found if f.area == "database"][:1] == [Level.OK]
    assert found[0].text.startswith("configured, PostgreSQL ")
    assert Level.UNREACHABLE not in {f.level for f in found}
    assert not (tmp_path / "pg").exists()
