pytest_plugins = ["tests.support.database", "tests.support.service", "tests.support.unleash"]
