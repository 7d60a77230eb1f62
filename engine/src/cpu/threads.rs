//! A pool of threads.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What runs: the thread's number, then the task's.
type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// How long a thread without work waits for more before it goes to sleep.
const PATIENCE: Duration = Duration::from_micros(200);

// The state of a job in one word: how many workers are in it, whether others may join, and its number.
const ACTIVE: u64 = OPEN - 1;
const OPEN: u64 = 1 << 16;
const STOP: u64 = 1 << 17;
const JOB: u64 = 1 << 18;

thread_local! {
    /// Whether this thread is inside a task, where a further job has nobody to share with.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Threads that run parts of a kernel together.
///
/// Each thread starts on its own contiguous share of the tasks, so that neighbours stay in one cache and the next
/// kernel finds them there; who is done takes from the ends of the others' shares. A job ends when its tasks are done:
/// it does not wait for workers that were too late to join.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    caller: Mutex<()>,
}

struct Shared {
    state: AtomicU64,
    job: UnsafeCell<Option<&'static Task<'static>>>,
    shares: Box<[Share]>,
    asleep: Box<[AtomicBool]>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only while no worker is active and none may join, and read only by active workers.
unsafe impl Sync for Shared {}

/// The tasks `low 32 bits .. high 32 bits` that a thread has not begun, alone in its cache lines.
#[repr(align(128))]
#[derive(Default)]
struct Share(AtomicU64);

impl Share {
    fn set(&self, tasks: Range<usize>) {
        self.0
            .store((tasks.end as u64) << 32 | tasks.start as u64, Relaxed);
    }

    /// Takes the first task, or the last for another thread.
    fn take(&self, first: bool) -> Option<usize> {
        let step = |share: u64| {
            let (start, end) = (share & u64::from(u32::MAX), share >> 32);
            (start < end).then(|| if first { share + 1 } else { share - (1 << 32) })
        };
        let was = self.0.fetch_update(Relaxed, Relaxed, step).ok()?;
        Some(if first {
            was as u32 as usize
        } else {
            (was >> 32) as usize - 1
        })
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller's included; at least 1, and fewer where the system refuses more.
    pub fn new(threads: usize) -> Pool {
        let threads = threads.clamp(1, ACTIVE as usize);
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            shares: (0..threads).map(|_| Share::default()).collect(),
            asleep: (0..threads).map(|_| AtomicBool::new(false)).collect(),
            panic: Mutex::new(None),
        });
        let spawn = |me: usize| {
            let shared = shared.clone();
            thread::Builder::new()
                .name(format!("secateur-{me}"))
                .spawn(move || shared.work(me))
                .ok()
        };
        Pool {
            workers: (1..threads).map_while(spawn).collect(),
            shared: shared.clone(),
            caller: Mutex::new(()),
        }
    }

    /// The number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` once with each of `0..tasks`, on all threads, and returns when all are done.
    ///
    /// Inside a task, and while another thread has a job in the pool, all of them run on the calling thread.
    ///
    /// # Panics
    ///
    /// If a task does, with its payload, when no task runs any more; others may then have been left out.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.run_with(tasks, &|_, i| task(i));
    }

    /// [`run`](Pool::run), with the number of the thread, below [`threads`](Pool::threads), before that of the task:
    /// no two tasks run at the same time with the same number.
    ///
    /// # Panics
    ///
    /// If a task does.
    pub fn run_with(&self, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        let alone = tasks <= 1 || self.workers.is_empty() || tasks > u32::MAX as usize || BUSY.get();
        let Some(_turn) = (!alone).then(|| self.caller.try_lock().ok()).flatten() else {
            return (0..tasks).for_each(|i| task(0, i));
        };
        self.shared.begin(tasks, self.threads().min(tasks), task);
        for (worker, asleep) in self.workers.iter().zip(&self.shared.asleep[1..]).take(tasks - 1) {
            if asleep.load(SeqCst) {
                worker.thread().unpark();
            }
        }
        self.shared.take_part(0, task);
        if let Some(payload) = self.shared.end() {
            drop(_turn);
            resume_unwind(payload);
        }
    }

    /// Calls `part` with `0..grain`, `grain..2 * grain` and so on up to `len`, on all threads. The parts do not depend
    /// on the number of threads.
    ///
    /// # Panics
    ///
    /// If a part does.
    pub fn split(&self, len: usize, grain: usize, part: &(dyn Fn(Range<usize>) + Sync)) {
        let grain = grain.max(1);
        self.run(len.div_ceil(grain), &|i| {
            part(i * grain..len.min((i + 1).saturating_mul(grain)));
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.fetch_or(STOP, SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches what tasks throw, so it has nothing to report.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Opens a job whose tasks `parts` threads share. Only for the one caller whose turn it is.
    fn begin(&self, tasks: usize, parts: usize, task: &Task) {
        let at = |i: usize| (tasks as u64 * i.min(parts) as u64 / parts as u64) as usize;
        for (i, share) in self.shares.iter().enumerate() {
            share.set(at(i)..at(i + 1));
        }
        // SAFETY: only the lifetime changes, and `end` returns before it is over, when no worker can read it any more.
        let task = unsafe { std::mem::transmute::<&Task<'_>, &'static Task<'static>>(task) };
        // SAFETY: the last job was closed and left by all, so nobody reads this.
        unsafe { *self.job.get() = Some(task) };
        // Ordered before the callers' look at `asleep`, as `work` orders them the other way round.
        self.state
            .store((self.state.load(Relaxed) & !ACTIVE) + JOB + OPEN, SeqCst);
    }

    /// Lets nobody else join, waits for those who have, and returns what a task threw.
    fn end(&self) -> Option<Box<dyn Any + Send>> {
        let mut state = self.state.fetch_and(!OPEN, Acquire);
        let mut spins = 0u32;
        while state & ACTIVE != 0 {
            spins = spins.saturating_add(1);
            // About two milliseconds. Whoever yields sooner lends the core to another program for longer than that.
            if spins < 40_000 {
                std::hint::spin_loop()
            } else {
                thread::yield_now()
            }
            state = self.state.load(Acquire);
        }
        self.panic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Runs tasks until none is left that nobody has begun.
    fn take_part(&self, me: usize, task: &Task) {
        let parts = self.shares.len();
        BUSY.set(true);
        let done = catch_unwind(AssertUnwindSafe(|| {
            while let Some(i) = self.shares[me].take(true) {
                task(me, i);
            }
            for other in (1..parts).map(|d| &self.shares[(me + d) % parts]) {
                while let Some(i) = other.take(false) {
                    task(me, i);
                }
            }
        }));
        BUSY.set(false);
        if let Err(payload) = done {
            self.panic
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(payload);
        }
    }

    /// The life of worker `me`.
    fn work(&self, me: usize) {
        let mut last = 0;
        loop {
            let state = self.wait(me, last);
            if state & STOP != 0 {
                return;
            }
            if self
                .state
                .compare_exchange_weak(state, state + 1, Acquire, Relaxed)
                .is_err()
            {
                continue;
            }
            last = state / JOB;
            // SAFETY: this worker is active, so the job stays until it is not.
            if let Some(task) = unsafe { *self.job.get() } {
                self.take_part(me, task);
            }
            self.state.fetch_sub(1, Release);
        }
    }

    /// The state, when it shows a job other than `last` that is open, or the end of the pool.
    fn wait(&self, me: usize, last: u64) -> u64 {
        let news = |state: u64| state & STOP != 0 || (state & OPEN != 0 && state / JOB != last);
        loop {
            let begun = Instant::now();
            while begun.elapsed() < PATIENCE {
                for _ in 0..32 {
                    let state = self.state.load(Acquire);
                    if news(state) {
                        return state;
                    }
                    std::hint::spin_loop();
                }
            }
            self.asleep[me].store(true, SeqCst);
            while !news(self.state.load(SeqCst)) {
                thread::park();
            }
            self.asleep[me].store(false, SeqCst);
        }
    }
}

/// The threads that a session runs on unless told otherwise: the smaller of the physical cores, the affinity mask and the
/// cgroup quota.
pub fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    allowed.min(physical_cores().unwrap_or(allowed)).max(1)
}

/// Cores, counting those that two hardware threads share once; `None` where the system does not tell.
fn physical_cores() -> Option<usize> {
    let cpus = std::fs::read_dir("/sys/devices/system/cpu").ok()?;
    let siblings = cpus
        .flatten()
        .filter_map(|cpu| std::fs::read_to_string(cpu.path().join("topology/thread_siblings_list")).ok());
    let cores: std::collections::BTreeSet<String> = siblings.collect();
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn counts(pool: &Pool, tasks: usize) -> Vec<usize> {
        let seen: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        pool.run(tasks, &|i| {
            seen[i].fetch_add(1, Relaxed);
        });
        seen.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 3, 9] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 3, 8, 100, 1000] {
                for _ in 0..20 {
                    assert_eq!(counts(&pool, tasks), vec![1; tasks]);
                }
            }
        }
    }

    #[test]
    fn workers_wake_from_sleep() {
        let pool = Pool::new(3);
        for _ in 0..5 {
            thread::sleep(PATIENCE * 5);
            assert_eq!(counts(&pool, 7), [1; 7]);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives() {
        let pool = Pool::new(3);
        for bad in [0, 5, 9] {
            let run = || pool.run(10, &|i| assert!(i != bad, "task {i}"));
            let thrown = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(*thrown.downcast::<String>().unwrap(), format!("task {bad}"));
            assert_eq!(counts(&pool, 10), [1; 10]);
        }
    }

    #[test]
    fn a_job_inside_a_task_runs_there() {
        let pool = Pool::new(3);
        let sum = AtomicUsize::new(0);
        pool.run(10, &|_| {
            let here = thread::current().id();
            pool.run(10, &|i| {
                assert_eq!(thread::current().id(), here);
                sum.fetch_add(i, Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 450);
    }

    #[test]
    fn callers_do_not_disturb_each_other() {
        let pool = Pool::new(2);
        thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| (0..200).for_each(|_| assert_eq!(counts(&pool, 20), [1; 20])));
            }
        });
    }

    #[test]
    fn threads_have_numbers_of_their_own() {
        let pool = Pool::new(4);
        let inside: Vec<_> = (0..4).map(|_| AtomicBool::new(false)).collect();
        pool.run_with(200, &|thread, _| {
            assert!(!inside[thread].swap(true, SeqCst));
            thread::yield_now();
            inside[thread].store(false, SeqCst);
        });
    }

    #[test]
    fn parts_cover_the_length() {
        let pool = Pool::new(2);
        let parts = Mutex::new(vec![]);
        pool.split(10, 4, &|r| parts.lock().unwrap().push(r));
        let mut parts = parts.into_inner().unwrap();
        parts.sort_by_key(|r| r.start);
        assert_eq!(parts, [0..4, 4..8, 8..10]);
        pool.split(0, 4, &|_| panic!("nothing to do"));
    }

    /// Prints what sharing costs: the time of a job of one task per thread, beyond that of one task.
    #[test]
    #[ignore = "a measurement"]
    fn dispatch_time() {
        let task = |micros| {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_micros(micros) {
                std::hint::spin_loop();
            }
        };
        let pool = Pool::new(2);
        for micros in [0, 2, 10] {
            let mut times: Vec<_> = (0..20_000)
                .map(|_| {
                    let begun = Instant::now();
                    pool.run(2, &|_| task(micros));
                    begun.elapsed()
                })
                .collect();
            times.sort();
            let (median, worst) = (times[10_000], times[19_800]);
            println!("2 tasks of {micros} us on 2 threads: {median:?}, 99 %: {worst:?}");
        }
    }
}
