//! Which processes belong to a login with a certificate, and their end. sshd's log says which certificate came from which
//! address and port; the kernel says which processes hold that connection, what they started, and in which session scope
//! they run. Owns that mapping; believes nothing that a process of the session could have written.

use super::HostError;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Most bytes of log that one round reads; the rest is read in the next.
const READ_BYTES_MAX: u64 = 16 * 1_024 * 1_024;

/// Files of the log that are followed at once.
const FILES_MAX: usize = 2;

/// What sshd's processes run: before OpenSSH 9.8 one program, since then one for each stage.
const SSHD: [&str; 3] = ["sshd", "sshd-session", "sshd-auth"];

/// How often killing is repeated, for processes that were started in between.
const ROUNDS_MAX: usize = 50;

/// One login with a certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Login {
    /// Where the client's end of the connection is.
    pub peer: SocketAddr,
    /// The serial of its certificate.
    pub serial: u64,
}

/// The logins that sshd logged, by the client's end of the connection.
#[derive(Debug)]
pub struct Logins {
    log: PathBuf,
    /// The log, and before it the one that it replaced: sshd writes there until it opens its log anew.
    files: Vec<Followed>,
    by_peer: BTreeMap<SocketAddr, u64>,
}

impl Logins {
    pub(super) const fn new(log: PathBuf) -> Self {
        Self { log, files: Vec::new(), by_peer: BTreeMap::new() }
    }

    /// Reads what was logged since the last time, also when the file was rotated: what stands at the end of the old one and was
    /// not read yet is read before the new one.
    pub(super) fn follow(&mut self) -> Result<(), HostError> {
        let opened = Followed::open(&self.log).map(|opened| {
            if self.files.last().is_none_or(|last| last.device != opened.device) {
                self.files.push(opened);
                self.files.drain(..self.files.len().saturating_sub(FILES_MAX));
            }
        });
        let mut read = Ok(());
        for file in &mut self.files {
            match file.lines() {
                Ok(text) => {
                    for (peer, serial) in text.lines().filter_map(accepted) {
                        match serial {
                            Some(serial) => self.by_peer.insert(peer, serial),
                            // The same address and port logged in again in another way: the older login is over.
                            None => self.by_peer.remove(&peer),
                        };
                    }
                }
                Err(error) => read = Err(error),
            }
        }
        opened.and(read).map_err(|error| HostError::System(self.log.clone(), error))
    }

    /// The logins with one of these serials.
    pub(super) fn of(&self, serials: &BTreeSet<u64>) -> Vec<Login> {
        let revoked = self.by_peer.iter().filter(|(_, serial)| serials.contains(serial));
        revoked.map(|(peer, serial)| Login { peer: *peer, serial: *serial }).collect()
    }
}

/// A file that is being read, whatever its name is by now.
#[derive(Debug)]
struct Followed {
    file: fs::File,
    device: (u64, u64),
    offset: u64,
}

impl Followed {
    fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let file = fs::File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { device: (metadata.dev(), metadata.ino()), file, offset: 0 })
    }

    /// The whole lines that were written since the last time. One that is still being written is read in the next round.
    fn lines(&mut self) -> io::Result<String> {
        if self.file.metadata()?.len() < self.offset {
            self.offset = 0;
        }
        self.file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        (&mut self.file).take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        self.offset = self.offset.saturating_add(u64::try_from(whole).unwrap_or(0));
        Ok(String::from_utf8_lossy(bytes.get(..whole).unwrap_or_default()).into_owned())
    }
}

/// `Accepted METHOD for USER from ADDRESS port PORT ssh2: … (serial N) CA …`: the client's end, and the serial if it was a
/// certificate. sshd writes user names escaped, and the words that count stand behind the name, so they are read from the end.
fn accepted(line: &str) -> Option<(SocketAddr, Option<u64>)> {
    let (_, rest) = line.split_once("Accepted ")?;
    let (who, how) = rest.rsplit_once(" ssh2")?;
    let (who, port) = who.rsplit_once(" port ")?;
    let (_, address) = who.rsplit_once(" from ")?;
    let address: IpAddr = address.parse().ok()?;
    let serial =
        how.split_once(" (serial ").and_then(|(_, rest)| rest.split_once(')')).and_then(|(serial, _)| serial.parse().ok());
    Some((SocketAddr::new(address.to_canonical(), port.parse().ok()?), serial))
}

/// Kills everything that belongs to a login; how many processes that were.
pub(super) fn end(login: &Login) -> Result<usize, HostError> {
    let mut killed = BTreeSet::new();
    let mut scopes = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let processes = Processes::read()?;
        let found = processes.of(login.peer, &mut scopes)?;
        if found.is_empty() {
            break;
        }
        for process in &found {
            if let Some(pid) = Pid::from_raw(*process) {
                // Gone already is as good.
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
        killed.extend(found);
    }
    Ok(killed.len())
}

/// All processes as they are now: number, parent.
struct Processes(BTreeMap<i32, i32>);

impl Processes {
    fn read() -> Result<Self, HostError> {
        let proc = Path::new("/proc");
        let entries = fs::read_dir(proc).map_err(|error| HostError::System(proc.to_owned(), error))?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        // The command's name in `stat` stands in parentheses and can hold anything, parentheses too. A zombie is dead.
        let living = pids.filter_map(|pid| {
            let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
            let (_, rest) = stat.rsplit_once(") ")?;
            let mut words = rest.split(' ');
            let (state, parent) = (words.next()?, words.next()?);
            (state != "Z" && state != "X").then(|| parent.parse().ok().map(|parent| (pid, parent))).flatten()
        });
        Ok(Self(living.collect()))
    }

    /// The sshd that holds the connection from `peer`, what that started, and what runs in the same session scope.
    ///
    /// INVARIANT(sshd-alone): a connection from `peer` counts only if an sshd holds it. Who was let in once chooses the port that
    /// he comes from, and can come from it again to any other server of this machine.
    fn of(&self, peer: SocketAddr, scopes: &mut BTreeSet<String>) -> Result<BTreeSet<i32>, HostError> {
        let sockets = sockets(peer)?;
        let link = |inode: &u64| format!("socket:[{inode}]");
        let links: BTreeSet<String> = sockets.iter().map(link).collect();
        let mut found: BTreeSet<i32> =
            self.0.keys().copied().filter(|pid| !links.is_empty() && is_sshd(*pid) && holds(*pid, &links)).collect();
        scopes.extend(found.iter().filter_map(|pid| scope(*pid)));
        let marked = environment_mark(peer);
        found.extend(self.0.keys().copied().filter(|pid| {
            scope(*pid).is_some_and(|scope| scopes.contains(&scope))
                || environment(*pid).iter().any(|entry| entry.starts_with(&marked))
        }));
        loop {
            let children: Vec<i32> = self
                .0
                .iter()
                .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
                .map(|(pid, _)| *pid)
                .collect();
            if children.is_empty() {
                break;
            }
            found.extend(children);
        }
        found.remove(&1);
        found.remove(&i32::try_from(std::process::id()).unwrap_or(0));
        Ok(found)
    }
}

/// The sockets of this machine that are connected to `peer`.
fn sockets(peer: SocketAddr) -> Result<BTreeSet<u64>, HostError> {
    let mut found = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = match fs::read_to_string(table) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(HostError::System(PathBuf::from(table), error)),
        };
        for line in text.lines().skip(1) {
            let mut words = line.split_whitespace();
            let remote = words.nth(2).and_then(endpoint);
            let inode = words.nth(6).and_then(|inode| inode.parse::<u64>().ok());
            if remote == Some(peer) {
                found.extend(inode.filter(|inode| *inode != 0));
            }
        }
    }
    Ok(found)
}

/// An address of `/proc/net/tcp`: hexadecimal, each group of four bytes in the machine's order.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let group = |index: usize| u32::from_str_radix(address.get(8 * index..8 * index + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(group(0)?)),
        32 => {
            let bytes: Vec<u8> = (0..4).map(group).collect::<Option<Vec<_>>>()?.concat();
            IpAddr::V6(Ipv6Addr::from(bytes.first_chunk::<16>().copied()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

/// Whether it runs a program of sshd, also one that an update has replaced meanwhile.
fn is_sshd(pid: i32) -> bool {
    let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) else { return false };
    let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    SSHD.contains(&name.strip_suffix(" (deleted)").unwrap_or(name))
}

fn holds(pid: i32, links: &BTreeSet<String>) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.into_iter().any(|target| target.to_str().is_some_and(|target| links.contains(target)))
}

/// The scope that systemd-logind made for the login, if it runs in one: what a session starts stays in it, also when it
/// leaves the process tree.
fn scope(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let scope =
        |path: &str| path.rsplit('/').find(|part| part.starts_with("session-") && part.ends_with(".scope")).map(str::to_owned);
    paths.filter_map(scope).next()
}

/// What sshd puts into the environment of everything that the login starts. A process can clear it, so it only adds.
fn environment_mark(peer: SocketAddr) -> String {
    format!("SSH_CONNECTION={} {} ", peer.ip(), peer.port())
}

fn environment(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|entry| String::from_utf8_lossy(entry).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};

    #[test]
    fn the_log_says_which_certificate_came_from_where() {
        let certificate = "Accepted publickey for deploy from 10.0.0.1 port 4711 ssh2: ED25519-CERT SHA256:abc ID grt_1 (serial 42) CA ED25519 SHA256:def";
        let peer: SocketAddr = "10.0.0.1:4711".parse().unwrap();
        for (line, expected) in [
            (certificate, Some((peer, Some(42)))),
            ("Nov 23 02:00:00 web sshd[7]: Accepted password for x from 10.0.0.1 port 4711 ssh2", Some((peer, None))),
            ("Accepted publickey for x from ::ffff:10.0.0.1 port 4711 ssh2: ED25519 SHA256:abc", Some((peer, None))),
            (
                "Accepted publickey for x from 9.9.9.9 port 1 ssh2: y from 10.0.0.1 port 4711 ssh2: z (serial 42)",
                Some((peer, Some(42))),
            ),
            ("Failed password for root from 10.0.0.1 port 4711 ssh2", None),
            ("Accepted publickey for x from nowhere port 4711 ssh2", None),
        ] {
            assert_eq!(accepted(line), expected, "{line}");
        }
    }

    #[test]
    fn addresses_of_the_kernel_read_as_what_they_are() {
        let cases = [("0100007F:1268", "127.0.0.1:4712"), ("0000000000000000FFFF00000100007F:1268", "127.0.0.1:4712")];
        for (text, address) in cases.into_iter().filter(|_| cfg!(target_endian = "little")) {
            assert_eq!(endpoint(text), address.parse().ok(), "{text}");
        }
        assert_eq!(endpoint("zz:1"), None);
    }

    #[test]
    fn a_rotated_log_is_read_from_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let line =
            |port: u16, serial: u64| format!("Accepted publickey for x from 10.0.0.1 port {port} ssh2: C (serial {serial}) CA\n");
        fs::write(&path, line(1, 1) + "half a li").unwrap();
        let mut logins = Logins::new(path.clone());
        logins.follow().unwrap();
        fs::rename(&path, folder.path().join("log.1")).unwrap();
        fs::write(&path, line(2, 2)).unwrap();
        logins.follow().unwrap();
        assert_eq!(logins.of(&BTreeSet::from([1, 2])).len(), 2);
    }

    #[test]
    fn what_was_logged_around_a_rotation_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let line = |port: u16| format!("Accepted publickey for x from 10.0.0.1 port {port} ssh2: C (serial {port}) CA\n");
        fs::write(&path, line(1)).unwrap();
        let mut logins = Logins::new(path.clone());
        logins.follow().unwrap();
        // Logged after the last look, and then, after the rotation, by an sshd that has the old file open still.
        let mut old = fs::OpenOptions::new().append(true).open(&path).unwrap();
        old.write_all(line(2).as_bytes()).unwrap();
        fs::rename(&path, folder.path().join("log.1")).unwrap();
        assert!(logins.follow().is_err(), "there is no log at this moment");
        fs::write(&path, line(3)).unwrap();
        logins.follow().unwrap();
        old.write_all(line(4).as_bytes()).unwrap();
        logins.follow().unwrap();
        let serials: Vec<_> = logins.of(&(1..=4).collect()).into_iter().map(|login| login.serial).collect();
        assert_eq!(serials, [1, 2, 3, 4]);
    }

    #[test]
    fn a_server_that_is_no_sshd_is_left_alone_though_it_is_asked_from_the_port_of_a_revoked_login() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (served, peer) = listener.accept().unwrap();
        let served = Stdio::from(std::os::fd::OwnedFd::from(served));
        let mut server = Command::new("sleep").arg("600").stdin(served).spawn().unwrap();
        let ended = end(&Login { peer, serial: 42 });
        let lives = server.try_wait().unwrap().is_none();
        server.kill().unwrap();
        server.wait().unwrap();
        drop(client);
        assert_eq!((ended.unwrap(), lives), (0, true));
    }
}
