PRAGMA application_id = 1162102593;
PRAGMA auto_vacuum = INCREMENTAL;
BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'edge_agent','readings','2026-11-28 13:41:39.974359+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'edge_agent','records','2026-11-28 13:41:39.975395+00:00');
INSERT INTO "_sqlite_migrations" VALUES(3,'edge_agent','progress','2026-11-28 13:41:39.976547+00:00');
INSERT INTO "_sqlite_migrations" VALUES(4,'edge_agent','entries','2026-11-28 13:41:39.978406+00:00');
INSERT INTO "_sqlite_migrations" VALUES(5,'edge_agent','holes','2026-11-28 13:41:39.979290+00:00');
INSERT INTO "_sqlite_migrations" VALUES(6,'edge_agent','times_of_the_device','2026-11-28 13:41:39.980078+00:00');
CREATE TABLE "applied" (
   "time" INTEGER PRIMARY KEY,
   "hash" TEXT NOT NULL
);
CREATE TABLE "arrival" (
   "time" INTEGER PRIMARY KEY,
   "reading" INTEGER NOT NULL
);
INSERT INTO "arrival" VALUES(1795000001000000000,1);
CREATE TABLE "configuration" (
   "hash" TEXT PRIMARY KEY,
   "time" INTEGER,
   "document" TEXT NOT NULL
, "basis" TEXT);
CREATE TABLE entry (number INTEGER PRIMARY KEY AUTOINCREMENT, machine TEXT NOT NULL, kind TEXT NOT NULL, said_by TEXT NOT NULL, made INTEGER NOT NULL, start INTEGER NOT NULL, until INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE "fact" (
   "name" TEXT PRIMARY KEY,
   "value" INTEGER NOT NULL
);
INSERT INTO "fact" VALUES('epoch',1);
INSERT INTO "fact" VALUES('starts',1);
INSERT INTO "fact" VALUES('reserved',1001);
INSERT INTO "fact" VALUES('alive',1795000001000000000);
CREATE TABLE "hole" (
   "id" INTEGER PRIMARY KEY,
   "tag" INTEGER NOT NULL,
   "start" INTEGER NOT NULL,
   "since" INTEGER NOT NULL,
   "reached" INTEGER NOT NULL,
   "until" INTEGER NOT NULL,
   "closed" INTEGER NOT NULL
);
CREATE TABLE "progress" (
   "machine" TEXT,
   "window" TEXT,
   "closed_until" INTEGER NOT NULL,
   "unobserved_since" INTEGER,
   "unobserved_cause" TEXT,
   PRIMARY KEY ("machine", "window")
);
CREATE TABLE "reading" (
   "id" INTEGER PRIMARY KEY,
   "tag" INTEGER NOT NULL,
   "time" INTEGER NOT NULL,
   "value" BLOB,
   "quality" INTEGER NOT NULL,
   "cause" TEXT,
   "received" INTEGER,
   "machine" INTEGER NOT NULL
, "source" INTEGER, "server" INTEGER);
INSERT INTO "reading" VALUES(1,1,1795000000000000000,7,0,NULL,NULL,1,NULL,NULL);
CREATE TABLE "record" (
   "position" INTEGER PRIMARY KEY,
   "epoch" INTEGER NOT NULL,
   "number" INTEGER NOT NULL,
   "type" TEXT NOT NULL,
   "key" TEXT,
   "revision" INTEGER,
   "topic" TEXT NOT NULL,
   "sequence" INTEGER,
   "issued" INTEGER NOT NULL,
   "payload" BLOB NOT NULL,
   "answered" INTEGER,
   "reason_code" INTEGER,
   "reason" TEXT
);
INSERT INTO "record" VALUES(1,1,1,'production',NULL,0,'t',1,1795000000000000000,X'7B226964223A2022313A31222C202273657175656E6365223A20312C202264617461223A207B226E223A20317D7D',NULL,NULL,NULL);
CREATE TABLE "reopened" (
   "id" INTEGER PRIMARY KEY,
   "machine" TEXT NOT NULL,
   "start" INTEGER NOT NULL,
   "until" INTEGER NOT NULL,
   "why" TEXT NOT NULL,
   "made" INTEGER NOT NULL
);
CREATE TABLE "tag" (
   "id" INTEGER PRIMARY KEY,
   "name" TEXT NOT NULL,
   "machine" INTEGER NOT NULL
);
INSERT INTO "tag" VALUES(1,'plc.count',1);
CREATE TABLE "topic" (
   "epoch" INTEGER,
   "name" TEXT,
   "sequence" INTEGER NOT NULL,
   PRIMARY KEY ("epoch", "name")
);
INSERT INTO "topic" VALUES(1,'t',1);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE UNIQUE INDEX "idx_tag_name"
    ON "tag" ("name");
CREATE INDEX reading_of_machine ON reading (tag, time) WHERE machine = 1;
CREATE UNIQUE INDEX "idx_record_epoch_number"
    ON "record" ("epoch", "number");
CREATE INDEX record_key ON record (key, epoch, revision) WHERE key IS NOT NULL;
CREATE INDEX outbox ON record (position) WHERE answered IS NULL;
CREATE INDEX record_issued ON record (issued);
CREATE INDEX "idx_entry_machine_start"
    ON "entry" ("machine", "start");
CREATE INDEX "idx_reopened_machine"
    ON "reopened" ("machine");
CREATE INDEX "idx_hole_tag_until"
    ON "hole" ("tag", "until");
DELETE FROM "sqlite_sequence";
COMMIT;
PRAGMA user_version = 6;
