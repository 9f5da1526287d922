//! The log cut into tiles of 256 (C2SP tlog-tiles): where each lies and what is in it.
//!
//! ```text
//! tile/<L>/<N>[.p/<W>]        W (or 256) hashes of level 8*L, 32 bytes each
//! tile/entries/<N>[.p/<W>]    W (or 256) leaves, each preceded by its length as two bytes
//! ```

/// Leaves or hashes in a full tile.
pub const TILE_WIDTH: u64 = 256;
/// Longest leaf that an entry bundle can hold.
pub const LEAF_BYTES_MAX: usize = 65_535;

/// The path of the tile of `level` and number `n` with `width` entries; `level` `None` is the
/// entry bundle.
pub fn path(level: Option<u8>, n: u64, width: u64) -> String {
    let level = level.map_or_else(|| "entries".to_owned(), |level| level.to_string());
    let mut groups = vec![format!("{:03}", n % 1000)];
    let mut rest = n / 1000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    groups.reverse();
    let partial = if width < TILE_WIDTH { format!(".p/{width}") } else { String::new() };
    format!("tile/{level}/{}{partial}", groups.join("/"))
}

/// How many entries the tile `n` of `level` has in a tree of `size` leaves (level 0 for entry
/// bundles).
pub const fn width(level: u8, n: u64, size: u64) -> u64 {
    let entries = size >> (8 * level as u32);
    let before = n.saturating_mul(TILE_WIDTH);
    let left = entries.saturating_sub(before);
    if left < TILE_WIDTH { left } else { TILE_WIDTH }
}

/// Writes leaves as an entry bundle. `None` when a leaf is longer than [`LEAF_BYTES_MAX`].
pub fn bundle<'a>(leaves: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for leaf in leaves {
        bytes.extend(u16::try_from(leaf.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(leaf);
    }
    Some(bytes)
}

/// Reads an entry bundle. `None` when it is cut short or holds more than a tile.
pub fn unbundle(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut leaves = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length));
        if rest.len() < length || leaves.len() as u64 == TILE_WIDTH {
            return None;
        }
        let (leaf, rest) = rest.split_at(length);
        leaves.push(leaf);
        bytes = rest;
    }
    bytes.is_empty().then_some(leaves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        assert_eq!(path(Some(0), 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(path(Some(1), 5, 7), "tile/1/005.p/7");
        assert_eq!(path(None, 0, 256), "tile/entries/000");
    }

    #[test]
    fn widths_cover_the_tree() {
        assert_eq!((width(0, 0, 300), width(0, 1, 300), width(0, 2, 300)), (256, 44, 0));
        assert_eq!((width(1, 0, 300), width(1, 0, 256 * 256)), (1, 256));
    }

    #[test]
    fn bundles_read_back_and_cuts_are_seen() {
        let leaves: Vec<&[u8]> = vec![b"a", b"", b"ccc"];
        let bytes = bundle(leaves.clone()).unwrap();
        assert_eq!(unbundle(&bytes), Some(leaves));
        for cut in 1..bytes.len() {
            let whole = unbundle(&bytes[..cut]).is_none_or(|l| l.len() < 3);
            assert!(whole, "cut at {cut}");
        }
        assert_eq!(bundle([vec![0; 65_536].as_slice()]), None);
    }
}
