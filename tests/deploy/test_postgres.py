from sqlalchemy import create_engine, text


def test_each_test_has_a_database_of_its_own(fresh_database: str):
    engine = create_engine(fresh_database)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE here (n int)"))
        assert connection.execute(text("SELECT count(*) FROM here")).scalar() == 0
    engine.dispose()
