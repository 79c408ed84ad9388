//! Key revocation lists as sshd reads them (OpenSSH `PROTOCOL.krl`): certificates of one authority by their serial.
//! Owns the binary format both ways: what we write, and the check that a list is whole before it replaces another.

use std::collections::BTreeSet;

/// `SSHKRL\n\0`.
const MAGIC: u64 = 0x5353_484b_524c_0a00;
const FORMAT: u32 = 1;
const SECTION_CERTIFICATES: u8 = 1;
const SERIAL_LIST: u8 = 0x20;

/// Largest list that is read, in bytes.
pub const KRL_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// A revocation list of one authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Krl {
    /// Rises with every list.
    pub number: u64,
    /// When it was made, in seconds since the epoch.
    pub generated: u64,
    /// The authority's public key as it is on the wire; empty if nothing is revoked.
    pub authority: Vec<u8>,
    /// The serials of the revoked certificates.
    pub serials: BTreeSet<u64>,
}

/// Why bytes are no revocation list that we can vouch for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAKrl {
    /// More than [`KRL_BYTES_MAX`].
    #[error("the list is larger than {KRL_BYTES_MAX} bytes")]
    TooLarge,
    /// It does not begin like one.
    #[error("the file is no revocation list")]
    Magic,
    /// It ends before it is complete, or something stands behind it.
    #[error("the list is cut off or damaged")]
    Damaged,
    /// It has sections that ours never have.
    #[error("the list was not made by this program")]
    Foreign,
}

impl Krl {
    /// The list as sshd reads it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + 8 * self.serials.len());
        out.extend(MAGIC.to_be_bytes());
        out.extend(FORMAT.to_be_bytes());
        out.extend(self.number.to_be_bytes());
        out.extend(self.generated.to_be_bytes());
        out.extend(0_u64.to_be_bytes());
        string(&mut out, b"");
        // The comment says how many follow, so that a list that was cut off behind its head is seen as one.
        string(&mut out, self.comment().as_bytes());
        if !self.serials.is_empty() {
            let list: Vec<u8> = self.serials.iter().flat_map(|serial| serial.to_be_bytes()).collect();
            let mut section = Vec::with_capacity(list.len() + 128);
            string(&mut section, &self.authority);
            string(&mut section, b"");
            section.push(SERIAL_LIST);
            string(&mut section, &list);
            out.push(SECTION_CERTIFICATES);
            string(&mut out, &section);
        }
        out
    }

    fn comment(&self) -> String {
        format!("serials={}", self.serials.len())
    }

    /// Reads a list that [`Krl::encode`] made.
    ///
    /// # Errors
    /// Why it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAKrl> {
        if bytes.len() > KRL_BYTES_MAX {
            return Err(NotAKrl::TooLarge);
        }
        let mut rest = bytes;
        if u64_of(&mut rest).map_err(|_| NotAKrl::Magic)? != MAGIC {
            return Err(NotAKrl::Magic);
        }
        let format = take(&mut rest, 4)?;
        let (number, generated, flags) = (u64_of(&mut rest)?, u64_of(&mut rest)?, u64_of(&mut rest)?);
        let (reserved, comment) = (string_of(&mut rest)?, string_of(&mut rest)?);
        if format != FORMAT.to_be_bytes() || flags != 0 || !reserved.is_empty() {
            return Err(NotAKrl::Foreign);
        }
        let mut krl = Self { number, generated, authority: Vec::new(), serials: BTreeSet::new() };
        if rest.is_empty() {
            return if comment == krl.comment().as_bytes() { Ok(krl) } else { Err(NotAKrl::Damaged) };
        }
        if take(&mut rest, 1)? != [SECTION_CERTIFICATES] {
            return Err(NotAKrl::Foreign);
        }
        let mut section = string_of(&mut rest)?;
        krl.authority = string_of(&mut section)?.to_vec();
        string_of(&mut section)?;
        if take(&mut section, 1)? != [SERIAL_LIST] {
            return Err(NotAKrl::Foreign);
        }
        let mut list = string_of(&mut section)?;
        while !list.is_empty() {
            krl.serials.insert(u64_of(&mut list)?);
        }
        if rest.is_empty() && section.is_empty() && comment == krl.comment().as_bytes() { Ok(krl) } else { Err(NotAKrl::Damaged) }
    }
}

/// `bytes` behind their length, as all of SSH writes them (RFC 4251 §5).
pub(crate) fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    // Nothing that we write is near 4 GiB.
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(bytes);
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], NotAKrl> {
    let (taken, after) = rest.split_at_checked(count).ok_or(NotAKrl::Damaged)?;
    *rest = after;
    Ok(taken)
}

fn u64_of(rest: &mut &[u8]) -> Result<u64, NotAKrl> {
    let (taken, after) = rest.split_first_chunk::<8>().ok_or(NotAKrl::Damaged)?;
    *rest = after;
    Ok(u64::from_be_bytes(*taken))
}

fn string_of<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], NotAKrl> {
    let (length, after) = rest.split_first_chunk::<4>().ok_or(NotAKrl::Damaged)?;
    *rest = after;
    take(rest, usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn sample(serials: &[u64]) -> Krl {
        let authority = if serials.is_empty() { Vec::new() } else { b"authority".to_vec() };
        Krl { number: 7, generated: 1_700_000_000, authority, serials: serials.iter().copied().collect() }
    }

    #[test]
    fn a_list_reads_back_as_it_was_written() {
        for krl in [sample(&[]), sample(&[1]), sample(&[u64::MAX, 3, 2])] {
            assert_eq!(Krl::decode(&krl.encode()), Ok(krl));
        }
    }

    #[test]
    fn a_list_that_was_cut_anywhere_is_refused() {
        let whole = sample(&[1, 2, 3]).encode();
        for end in 0..whole.len() {
            assert!(Krl::decode(&whole[..end]).is_err(), "{end}");
        }
        assert_eq!(Krl::decode(&[whole.as_slice(), b"x"].concat()), Err(NotAKrl::Damaged));
        assert_eq!(Krl::decode(b"<html>404</html>"), Err(NotAKrl::Magic));
    }
}
