//! Opens SQLite the one way that is safe here: WAL, full sync, checked version; and notices when the file under
//! an open connection is no longer the file of that name. Knows no table but by migration.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, io, sqlite};

/// The first version whose WAL reset does not corrupt.
const SQLITE_NEEDED: (i32, &str) = (3_051_003, "3.51.3");
/// Pages of WAL after which a commit also checkpoints: 16 MiB, so that this is rare.
const WAL_PAGES: i64 = 4096;
/// How long a connection waits for a lock.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Migrations in order; the n-th leads to schema n + 1.
const MIGRATIONS: [&str; 3] = [include_str!("schema.sql"), include_str!("schema2.sql"), include_str!("schema3.sql")];

/// Makes the data directory and keeps other processes out for as long as the result lives.
pub(crate) fn claim(data_dir: &Path) -> Result<File, Error> {
    // Others on this machine have no business here.
    if !data_dir.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(io("create", data_dir))?;
        // Its name must survive a power loss as what is written into it does.
        let parent = data_dir.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(io("sync", parent))?;
    }
    let path = data_dir.join("lock");
    make_private(&path)?;
    let file = File::options().write(true).open(&path).map_err(io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { path: data_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io("lock", path)(source)),
    }
}

/// Sees to it that there is a file that its owner alone may read and write, whatever the umask. One that is there is not
/// opened: closing it again would drop the locks that SQLite has on it in this process.
pub(crate) fn make_private(path: &Path) -> Result<(), Error> {
    match fs::metadata(path) {
        Ok(found) if found.mode() & 0o077 == 0 => Ok(()),
        Ok(_) => fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(io("protect", path)),
        Err(_) => {
            let made = File::options().create_new(true).write(true).mode(0o600).open(path);
            match made {
                // Somebody else was faster; whether they may be is decided by the lock.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                made => made.map(drop).map_err(io("create", path)),
            }
        }
    }
}

/// Opens the database for writing, creating it if there is none.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, Error> {
    // SQLite takes an empty file for a new database, and gives its WAL the permissions of the database.
    make_private(path)?;
    open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// Opens the existing database for reading.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, Error> {
    // Read-write, because a reader of a WAL database must be able to write its shared memory; the pragma forbids more.
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "query_only", true).map_err(sqlite("set `query_only`"))?;
    Ok(connection)
}

/// Settings hold for one connection only, so every connection comes through here.
fn open(path: &Path, flags: OpenFlags) -> Result<Connection, Error> {
    if rusqlite::version_number() < SQLITE_NEEDED.0 {
        return Err(Error::SqliteTooOld { found: rusqlite::version(), needed: SQLITE_NEEDED.1 });
    }
    let connection =
        Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(sqlite("open its file"))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite("set a timeout"))?;
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(sqlite("switch to write-ahead logging"))?;
    if mode != "wal" {
        return Err(Error::Damaged { what: "write-ahead logging cannot be used on this file system" });
    }
    let pragmas: [(&str, i64); 6] = [
        // FULL (2) syncs the WAL at every commit: NORMAL would lose answered commits when power fails.
        ("synchronous", 2),
        ("wal_autocheckpoint", WAL_PAGES),
        ("cell_size_check", 1),
        ("trusted_schema", 0),
        ("temp_store", 2),
        ("cache_size", -32_768),
    ];
    for (name, value) in pragmas {
        connection.pragma_update(None, name, value).map_err(sqlite("apply its settings"))?;
    }
    // What is deleted (openings, keys) is zeroed where this costs no extra page write.
    connection.pragma_update(None, "secure_delete", "FAST").map_err(sqlite("apply its settings"))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Brings the schema up to date, each step in one transaction.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), Error> {
    let found: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sqlite("read its schema version"))?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(Error::SchemaNewer { found, known });
    }
    for (number, migration) in (1_i64..).zip(MIGRATIONS).skip(usize::try_from(found).unwrap_or(0)) {
        let step = connection.transaction().map_err(sqlite("migrate"))?;
        step.execute_batch(migration).map_err(sqlite("migrate"))?;
        step.pragma_update(None, "user_version", number).map_err(sqlite("migrate"))?;
        step.commit().map_err(sqlite("migrate"))?;
    }
    Ok(())
}

/// Which files an open connection writes to. SQLite goes on happily when they are deleted, into nowhere.
#[derive(Debug)]
pub(crate) struct FileIdentity {
    files: [(PathBuf, (u64, u64)); 2],
}

impl FileIdentity {
    /// Remembers the files of an open database, its WAL included.
    pub(crate) fn of(path: &Path) -> Result<Self, Error> {
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        let wal = PathBuf::from(wal);
        let identify = |path: PathBuf| match inode(&path) {
            Some(inode) => Ok((path, inode)),
            None => Err(Error::FileReplaced { path }),
        };
        Ok(Self { files: [identify(path.to_owned())?, identify(wal)?] })
    }

    /// Whether they are still the files of those names.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.files.iter().find(|(path, known)| inode(path) != Some(*known)) {
            Some((path, _)) => Err(Error::FileReplaced { path: path.clone() }),
            None => Ok(()),
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_database_of_the_first_schema_is_migrated_and_keeps_what_it_holds() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut database = open_writer(&dir.path().join("a.db")).unwrap();
        database.execute_batch(MIGRATIONS[0]).unwrap();
        database.pragma_update(None, "user_version", 1).unwrap();
        database.execute("INSERT INTO agent (id, record) VALUES ('bot', '{}')", []).unwrap();
        let batch = "INSERT INTO log_batch (first, count, size, root, frontier, epoch, chain, signature, packed)
                     VALUES (7, 1, 8, x'01', x'02', 3, x'04', x'05', x'06')";
        database.execute(batch, []).unwrap();
        migrate(&mut database).unwrap();
        migrate(&mut database).unwrap();
        let kept = "SELECT count(*) FROM log_batch WHERE first = 7 AND epoch = 3 AND progress IS NULL AND packed = x'06'";
        let count = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count("PRAGMA user_version"), MIGRATIONS.len() as i64);
        assert_eq!(count(kept), 1);
        assert_eq!((count("SELECT count(*) FROM agent"), count("SELECT count(*) FROM credential")), (1, 0));
    }

    #[test]
    fn every_connection_logs_ahead_and_syncs_fully_and_readers_cannot_write() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("a.db");
        let mut writer = open_writer(&path).unwrap();
        migrate(&mut writer).unwrap();
        let reader = open_reader(&path).unwrap();
        for connection in [&writer, &reader] {
            let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
            let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
            assert_eq!((mode.as_str(), synchronous), ("wal", 2));
        }
        assert!(reader.execute("DELETE FROM agent", []).is_err());
    }
}
