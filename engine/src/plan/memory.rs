//! Where values live: which share memory, and at which offset of the arena.

use crate::cpu::LINE;

/// A stretch of memory that one or more values use, and the steps during which it must not change hands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Buffer {
    pub(super) bytes: usize,
    /// The step that writes it first.
    pub(super) from: usize,
    /// The last step that reads or writes it.
    pub(super) to: usize,
}

/// An offset for each buffer, such that no two that live at the same time overlap, and the bytes that all take together.
///
/// The largest buffer is placed first, each at the lowest offset that is free while it lives (best fit by size, as in
/// Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
pub(super) fn place(buffers: &[Buffer]) -> (Vec<usize>, usize) {
    let mut by_size: Vec<usize> = (0..buffers.len()).collect();
    by_size.sort_by_key(|&i| (std::cmp::Reverse(buffers[i].bytes), buffers[i].from));
    let mut offsets = vec![0usize; buffers.len()];
    let mut placed: Vec<usize> = vec![];
    let mut total = 0usize;
    for i in by_size {
        let b = &buffers[i];
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&j| buffers[j].from <= b.to && b.from <= buffers[j].to)
            .map(|&j| (offsets[j], offsets[j].saturating_add(rounded(buffers[j].bytes))))
            .collect();
        taken.sort_unstable();
        let mut offset = 0usize;
        for (start, end) in taken {
            if offset.saturating_add(rounded(b.bytes)) <= start {
                break;
            }
            offset = offset.max(end);
        }
        offsets[i] = offset;
        total = total.max(offset.saturating_add(rounded(b.bytes)));
        placed.push(i);
    }
    (offsets, total)
}

/// Bytes of memory that are free on the machine, within the limit of the control group; `None` where it does not tell.
pub fn available() -> Option<usize> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let free = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: usize = free.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let number = |name: &str| -> Option<usize> {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok()?;
        text.trim().parse().ok()
    };
    let group = number("max").map(|max| max.saturating_sub(number("current").unwrap_or(0)));
    Some(kib.checked_mul(1024)?.min(group.unwrap_or(usize::MAX)))
}

fn rounded(bytes: usize) -> usize {
    bytes.div_ceil(LINE).saturating_mul(LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(bytes: usize, from: usize, to: usize) -> Buffer {
        Buffer { bytes, from, to }
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        let chain: Vec<_> = (0..10).map(|i| buffer(1000, i, i + 1)).collect();
        assert_eq!(place(&chain).1, 2 * 1024);
    }

    #[test]
    fn what_lives_together_does_not_overlap() {
        let mut state = 1u64;
        let mut next = |n: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            usize::try_from((state >> 33) % n).unwrap()
        };
        let buffers: Vec<_> = (0..200)
            .map(|_| {
                let from = next(50);
                buffer(next(5000), from, from + next(10))
            })
            .collect();
        let (at, total) = place(&buffers);
        for (i, a) in buffers.iter().enumerate() {
            assert!(at[i] % LINE == 0 && at[i] + a.bytes <= total);
            for (j, b) in buffers.iter().enumerate().take(i) {
                let together = a.from <= b.to && b.from <= a.to;
                assert!(!together || at[i] + a.bytes <= at[j] || at[j] + b.bytes <= at[i]);
            }
        }
    }
}
