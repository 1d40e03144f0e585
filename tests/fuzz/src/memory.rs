//! The counting allocator: how much more a thread holds at its worst moment than it held before.
//!
//! Invariant: only what this thread asks for and gives back is counted, so tests beside it change nothing.
#![allow(unsafe_code)] // an allocator is nothing else; it hands every call on to the system's

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted.
pub struct Counting;

thread_local! {
    /// Bytes held now and at most; below zero where another thread's were given back.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(taken: isize) {
    // A thread that ends has no counter any more.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + taken, most.max(now + taken)));
    });
}

// SAFETY: every call goes to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// What `run` gives, and the bytes that this thread held at most meanwhile beyond those that it held before.
pub fn measured<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    let given = run();
    let (_, most) = HELD.with(Cell::get);
    (given, usize::try_from(most - before).unwrap_or(0))
}
