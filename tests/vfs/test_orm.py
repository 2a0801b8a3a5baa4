# SPDX-License-Identifier: BSD-3-Clause
"""Django and SQLAlchemy over the VFS as the default one: they know nothing but a plain path."""
import os
import sqlite3
import subprocess
import sys
import threading
import unittest

import vfs_world

try:
    import django
    import sqlalchemy
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.execute("SELECT load_extension(?, 'kvfs_default')", (vfs_world.EXTENSION,))
volume = vfs_world.volume("orm")


def listed():
    out = subprocess.run([os.environ["KVFS_BIN"], "ls", volume], check=True, capture_output=True)
    return out.stdout.decode().split()


class Django(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        from django.conf import settings
        settings.configure(
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3",
                                   "NAME": volume + "/django.db", "OPTIONS": {"timeout": 60}}},
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
            DEFAULT_AUTO_FIELD="django.db.models.AutoField", USE_TZ=True)
        django.setup()
        from django.core.management import call_command
        call_command("migrate", verbosity=0)  # alters tables, which rebuilds them

    @classmethod
    def tearDownClass(cls):
        from django.db import connections
        connections.close_all()

    def test_users(self):
        from django.contrib.auth.models import Group, User
        from django.db import IntegrityError, transaction
        with transaction.atomic():
            group = Group.objects.create(name="g")
            for i in range(50):
                user = User(username=f"u{i}", email=f"u{i}@example.org")
                user.save()
                user.groups.add(group)
        with self.assertRaises(RuntimeError), transaction.atomic():
            User.objects.all().delete()
            raise RuntimeError
        with transaction.atomic():
            User.objects.filter(username="u0").update(first_name="first")
            try:
                with transaction.atomic():  # a savepoint
                    User.objects.create(username="u1")
            except IntegrityError:
                pass
            User.objects.filter(username="u49").delete()
        self.assertEqual(User.objects.filter(groups__name="g").count(), 49)
        self.assertEqual(User.objects.get(username="u0").first_name, "first")
        self.assertIn("django.db", listed())

    def test_threads(self):
        from django.contrib.auth.models import User
        from django.db import connection, transaction
        from django.db.models import F
        user = User.objects.create(username="counter")

        def count():
            for _ in range(10):
                with transaction.atomic():
                    User.objects.filter(pk=user.pk).update(last_name=F("last_name") + 1)
            connection.close()

        User.objects.filter(pk=user.pk).update(last_name=0)
        threads = [threading.Thread(target=count) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        user.refresh_from_db()
        self.assertEqual(int(user.last_name), 30)


class SqlAlchemy(unittest.TestCase):
    def test_orm(self):
        from sqlalchemy import Column, ForeignKey, Integer, String, create_engine, func, select
        from sqlalchemy.exc import IntegrityError
        from sqlalchemy.orm import Session, declarative_base, relationship

        base = declarative_base()

        class Author(base):
            __tablename__ = "author"
            id = Column(Integer, primary_key=True)
            name = Column(String, unique=True)
            books = relationship("Book", cascade="all, delete-orphan")

        class Book(base):
            __tablename__ = "book"
            id = Column(Integer, primary_key=True)
            title = Column(String)
            author_id = Column(ForeignKey("author.id"))

        engine = create_engine("sqlite:///" + volume + "/alchemy.db", future=True)
        base.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            for i in range(20):
                session.add(Author(name=f"a{i}", books=[Book(title=f"t{i}-{j}") for j in range(5)]))
        with Session(engine) as session:
            session.add(Author(name="a1"))
            with self.assertRaises(IntegrityError):
                session.commit()
            session.rollback()
            session.delete(session.execute(select(Author).filter_by(name="a2")).scalar_one())
            session.commit()
            self.assertEqual(session.execute(select(func.count(Book.id))).scalar(), 95)
        base.metadata.drop_all(engine, tables=[Book.__table__])
        engine.dispose()
        uri = f"sqlite:///file:alchemy.db?vfs=kvfs&volume={volume}&uri=true"
        with create_engine(uri, future=True).connect() as db:
            tables = sqlalchemy.inspect(db).get_table_names()
        self.assertEqual(tables, ["author"])
        self.assertIn("alchemy.db", listed())


if __name__ == "__main__":
    unittest.main()
