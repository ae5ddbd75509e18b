-- What the first release has written, before units of work: one row of everything.
BEGIN TRANSACTION;
CREATE TABLE cost_sums (
        mission TEXT NOT NULL,
        config_name TEXT NOT NULL,
        cost_type TEXT NOT NULL,
        quantity TEXT NOT NULL,
        amount TEXT NOT NULL,
        PRIMARY KEY (mission, config_name, cost_type)
    ) WITHOUT ROWID;
INSERT INTO "cost_sums" VALUES('missions:m','tokens','TOKEN_INPUT','3.0','0.30');
CREATE TABLE costs (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        mission TEXT NOT NULL,
        name TEXT NOT NULL,
        config_name TEXT NOT NULL,
        cost_type TEXT NOT NULL,
        unit TEXT NOT NULL,
        rate REAL NOT NULL,
        quantity REAL NOT NULL,
        cost REAL NOT NULL,
        setup_version_id TEXT NOT NULL,
        job_id TEXT NOT NULL,
        created INTEGER NOT NULL
    );
INSERT INTO "costs" VALUES(1,'missions:m','call','tokens','TOKEN_INPUT','t',0.1,3.0,0.3,'setup_versions:v','j',1795275738543837);
CREATE TABLE file_contents (name TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, size INTEGER NOT NULL);
INSERT INTO "file_contents" VALUES('169ffb6a888f41cea26a2963a1688cd2','79f076abdd19a752db7267bfff2f9022161d120dea919fdaca2ffdfc24ca8c96',4);
CREATE TABLE files (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, context TEXT NOT NULL, name TEXT NOT NULL,
        file_type TEXT NOT NULL, content_type TEXT NOT NULL, metadata TEXT, status TEXT NOT NULL,
        created INTEGER NOT NULL, updated INTEGER NOT NULL, content TEXT NOT NULL REFERENCES file_contents (name));
INSERT INTO "files" VALUES(1,'files:46ae58a4-b6d3-4371-9c63-defc427f18c9','missions:m','a.txt','DOCUMENT','application/octet-stream',NULL,'ACTIVE',1795275738672154,1795275738672154,'169ffb6a888f41cea26a2963a1688cd2');
CREATE TABLE profiles (mission TEXT PRIMARY KEY, profile TEXT NOT NULL);
INSERT INTO "profiles" VALUES('m','{"name": "Ada"}');
CREATE TABLE records (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        context TEXT NOT NULL,
        collection TEXT NOT NULL,
        record_id TEXT NOT NULL,
        data_type TEXT NOT NULL,
        data TEXT NOT NULL,
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL,
        UNIQUE (context, collection, record_id)
    );
INSERT INTO "records" VALUES(1,'missions:m','notes','a','OUTPUT','{"text":"x"}',1795275738487792,1795275738487792);
CREATE TABLE schemas (name TEXT PRIMARY KEY, version INTEGER NOT NULL);
INSERT INTO "schemas" VALUES('records',2);
INSERT INTO "schemas" VALUES('costs',4);
INSERT INTO "schemas" VALUES('profiles',1);
INSERT INTO "schemas" VALUES('setups',2);
INSERT INTO "schemas" VALUES('snapshots',1);
INSERT INTO "schemas" VALUES('files',5);
CREATE TABLE setup_versions (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        setup TEXT NOT NULL,
        version TEXT NOT NULL,
        content TEXT NOT NULL,
        created INTEGER NOT NULL,
        UNIQUE (setup, version)
    );
INSERT INTO "setup_versions" VALUES(1,'v','s','1','{"a": 1}',1767225600000000);
CREATE TABLE setups (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        organisation_id TEXT NOT NULL,
        owner_id TEXT NOT NULL,
        module_id TEXT NOT NULL,
        status TEXT NOT NULL,
        current TEXT
    );
INSERT INTO "setups" VALUES(1,'s','S','o','u','modules:m','ready','v');
CREATE TABLE snapshots (seq INTEGER PRIMARY KEY AUTOINCREMENT, mission TEXT NOT NULL, name TEXT NOT NULL,
        data TEXT NOT NULL, UNIQUE (mission, name));
INSERT INTO "snapshots" VALUES(1,'m','first','{"a": 1}');
CREATE INDEX records_in_order ON records (context, collection, place);
CREATE INDEX costs_of_mission ON costs (mission, place);
CREATE INDEX costs_of_name ON costs (mission, name, place);
CREATE UNIQUE INDEX files_by_name ON files (context, name) WHERE status <> 'DELETED';
CREATE INDEX files_by_context ON files (context, seq);
CREATE INDEX files_by_content ON files (content);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('records',1);
INSERT INTO "sqlite_sequence" VALUES('costs',1);
INSERT INTO "sqlite_sequence" VALUES('setups',1);
INSERT INTO "sqlite_sequence" VALUES('setup_versions',1);
INSERT INTO "sqlite_sequence" VALUES('snapshots',1);
INSERT INTO "sqlite_sequence" VALUES('files',1);
COMMIT;
