//! Every operator against its own facts, over its own cases.

mod batch;

use super::*;
use crate::cpu::{Arena, Io, Layouts, Packs, Pool, View, ViewMut, blocked};
use crate::ir::{DType, Node, ValueId};
use crate::reference;

#[test]
fn the_table_is_sorted() {
    let disorder = OPS.windows(2).find(|w| w[0].name() >= w[1].name());
    assert_eq!(disorder.map(|w| [w[0].name(), w[1].name()]), None);
}

#[test]
fn every_operator_has_a_case_and_ascending_versions() {
    for op in OPS {
        assert!(op.laws().any || !op.cases().is_empty(), "{:?}", op.name());
        assert!(op.since().is_sorted_by(|a, b| a < b), "{:?}", op.name());
    }
}

#[test]
fn who_works_on_blocks_has_kernels_for_them() {
    let on_blocks = |b: &Bench| {
        let (n, packs) = (b.view(true), Packs::default());
        let Ok(facts) = b.op.infer(&n) else { return false };
        let all = b.op.cpu(&n.lowered(&facts, &packs));
        all.iter().any(|c| c.layouts.inputs != 0 && !c.layouts.turned)
    };
    for op in OPS.iter().filter(|op| op.laws().blocks) {
        let mut own = benches().filter(|b| b.op.name() == op.name());
        assert!(own.any(|b| on_blocks(&b)), "{:?}", op.name());
    }
}

/// One case of one operator, with everything that a node needs.
struct Bench {
    op: &'static dyn Op,
    case: Case,
    node: Node,
    facts: Vec<Option<Fact>>,
}

fn benches() -> impl Iterator<Item = Bench> {
    OPS.iter()
        .flat_map(|&op| op.cases().into_iter().map(move |case| (op, case)))
        .map(|(op, case)| {
            let mut ids = (0u32..).map(ValueId);
            let inputs = case
                .inputs
                .iter()
                .map(|x| ids.next().filter(|_| x.is_some()))
                .collect();
            let name = op.name();
            let node = Node {
                domain: (!name.domain.is_empty()).then(|| name.domain.into()),
                attrs: case.attrs.clone(),
                ..Node::new(name.name, inputs, (0..case.outputs).map(|_| ids.next()).collect())
            };
            let facts = case.inputs.iter().map(|x| x.as_ref().map(Fact::of)).collect();
            Bench {
                op,
                case,
                node,
                facts,
            }
        })
}

impl Bench {
    fn x(&self) -> Vec<Option<&Tensor>> {
        self.case.inputs.iter().map(Option::as_ref).collect()
    }

    /// The node with only `konst` inputs known, or all of them.
    fn view(&self, all: bool) -> NodeRef<'_> {
        let known = self.case.inputs.iter().enumerate();
        let x: Vec<_> = known
            .map(|(i, x)| x.as_ref().filter(|_| all || self.case.konst.contains(&i)))
            .collect();
        NodeRef::new(
            &self.node,
            self.case.opset,
            reference::given(&self.node.inputs, &self.facts, &x),
        )
    }

    fn place(&self) -> String {
        format!("{:?}, case {:?}", self.op.name(), self.case.name)
    }

    fn expected(&self) -> Vec<Tensor> {
        let n = self.view(true);
        let y = reference::eval(self.op, &n, &self.x()).and_then(|y| self.op.infer(&n).map(|_| y));
        assert_eq!(
            n.unread(),
            [""; 0],
            "{}: attributes that nobody reads",
            self.place()
        );
        y.unwrap_or_else(|e| panic!("{}: {e}", self.place()))
    }

    fn check(&self, what: &str, got: &[Tensor], want: &[Tensor]) {
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            let place = format!("{}, {what}, output {i}", self.place());
            assert_eq!((g.dtype(), g.dims()), (w.dtype(), w.dims()), "{place}");
            let (Some(gf), Some(wf)) = (g.floats(), w.floats()) else {
                assert_eq!(g, w, "{place}");
                continue;
            };
            for (j, (&a, &b)) in gf.iter().zip(&wf).enumerate() {
                let near = (a - b).abs() <= self.case.atol + self.case.rtol * b.abs();
                assert!(
                    a == b || near || (a.is_nan() && b.is_nan()),
                    "{place}, element {j}: {a}, expected {b}"
                );
            }
        }
    }
}

#[test]
fn inference_takes_what_is_not_known() {
    let mut wrong = vec![];
    for b in benches() {
        let shapeless = |f: &Fact| Fact::tensor(f.ty.dtype(), None);
        let ways: [&dyn Fn(&Fact) -> Fact; 2] = [&shapeless, &|_| Fact::unknown()];
        for (way, hide) in ways.iter().enumerate() {
            // All inputs, then each by itself.
            for only in (0..=b.facts.len()).map(|i| i.checked_sub(1)) {
                let facts = b.facts.iter().enumerate();
                let facts: Vec<_> = facts
                    .map(|(i, f)| {
                        f.as_ref().map(|f| {
                            if only.is_none_or(|o| o == i) {
                                hide(f)
                            } else {
                                f.clone()
                            }
                        })
                    })
                    .collect();
                let x = vec![None; facts.len()];
                let n = NodeRef::new(
                    &b.node,
                    b.case.opset,
                    reference::given(&b.node.inputs, &facts, &x),
                );
                if let Err(e) = b.op.infer(&n) {
                    wrong.push(format!("{} (way {way}, input {only:?}): {e}", b.place()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn inference_agrees_with_the_reference() {
    for b in benches() {
        let y = b.expected();
        for all in [false, true] {
            let n = b.view(all);
            let facts = b.op.infer(&n).unwrap_or_else(|e| panic!("{}: {e}", b.place()));
            assert!(facts.len() >= b.case.outputs, "{}", b.place());
            for (f, y) in facts.iter().zip(&y) {
                assert_eq!(f.ty.dtype(), Some(y.dtype()), "{}", b.place());
                let Some(shape) = f.ty.shape() else { continue };
                assert_eq!(shape.len(), y.dims().len(), "{}", b.place());
                for (d, &size) in shape.iter().zip(y.dims()) {
                    assert!(
                        d.size().is_none_or(|d| d == size),
                        "{}: {shape:?}, {:?}",
                        b.place(),
                        y.dims()
                    );
                }
                if let (Some(data), Some(ints)) = (&f.data, y.ints()) {
                    assert_eq!(data.len(), ints.len(), "{}", b.place());
                    for (d, int) in data.iter().zip(ints) {
                        assert!(d.known().is_none_or(|d| d == int), "{}: {data:?}", b.place());
                    }
                }
            }
        }
    }
}

/// `t` in the layout that is asked for, where `other` says so.
fn laid_out(t: &Tensor, other: bool, layout: Layouts) -> Tensor {
    if other && layout.turned {
        return turned(t);
    }
    in_blocks(t, other)
}

/// `t` with its two middle axes exchanged.
fn turned(t: &Tensor) -> Tensor {
    let &[a, b, c, d] = t.dims() else { panic!("axes") };
    let x = t.elements::<f32>().unwrap();
    let at = |i: usize| ((i / (b * d * c) * b + i / d % b) * c + i / (b * d) % c) * d + i % d;
    Tensor::of(&[a, c, b, d], (0..x.len()).map(|i| x[at(i)]).collect())
}

fn in_blocks(t: &Tensor, blocks: bool) -> Tensor {
    let Some(to) = blocked::dims(t.dims()).filter(|_| blocks && t.dtype() == DType::F32) else {
        return t.clone();
    };
    let mut y = vec![0f32; to.iter().product()];
    let sizes = [t.dims()[0], t.dims()[1], t.dims()[2..].iter().product()];
    blocked::pack(&t.elements::<f32>().unwrap(), &mut y, sizes, &Pool::new(1));
    Tensor::of(&to, y)
}

/// `t`, which was made like `like`, row by row; lanes behind the last channel must be zero.
fn in_rows(t: Tensor, like: &Tensor, back: bool) -> Tensor {
    if back {
        return turned(&t);
    }
    if t.dims() == like.dims() {
        return t;
    }
    let (d, mut y) = (like.dims(), vec![0f32; like.len()]);
    let x = t.elements::<f32>().unwrap();
    blocked::unpack(&x, &mut y, [d[0], d[1], d[2..].iter().product()], &Pool::new(1));
    let back = Tensor::of(d, y);
    let clean = in_blocks(&back, true).bytes() == t.bytes();
    assert!(clean, "lanes behind the last channel are not zero");
    back
}

/// Runs `kernel`, on blocks of channels where it asks for them; input `over` shares its memory with output 0.
fn run(
    b: &Bench,
    (kernel, layout): (&dyn crate::cpu::Kernel, Layouts),
    like: &[Tensor],
    threads: usize,
    over: Option<usize>,
) -> Vec<Tensor> {
    let x = b.x().into_iter().enumerate();
    let x: Vec<_> = x
        .map(|(i, t)| t.map(|t| laid_out(t, layout.inputs & (1 << i) != 0, layout)))
        .collect();
    let other = |i: usize| layout.outputs && (i == 0 || !layout.turned);
    let all = like.iter().enumerate();
    let all: Vec<_> = all.map(|(i, t)| laid_out(t, other(i), layout)).collect();
    let made = run_laid_out(b, kernel, &x, &all, threads, over);
    let made = made.into_iter().zip(like).enumerate();
    made.map(|(i, (t, like))| in_rows(t, like, other(i) && layout.turned))
        .collect()
}

fn run_laid_out(
    b: &Bench,
    kernel: &dyn crate::cpu::Kernel,
    x: &[Option<Tensor>],
    like: &[Tensor],
    threads: usize,
    over: Option<usize>,
) -> Vec<Tensor> {
    let mut memory: Vec<_> = like.iter().map(|t| Arena::new(t.bytes().len())).collect();
    let held: Vec<_> = x.iter().map(|x| x.as_ref().map(aligned)).collect();
    for m in &mut memory {
        m.bytes_mut().fill(0xa5);
    }
    if let Some(x) = over.and_then(|i| x[i].as_ref()) {
        memory[0].bytes_mut()[..x.bytes().len()].copy_from_slice(x.bytes());
    }
    let mut outputs: Vec<_> = like
        .iter()
        .zip(&mut memory)
        .enumerate()
        .map(|(i, (t, m))| {
            let bytes = &mut m.bytes_mut()[..t.bytes().len()];
            b.node
                .outputs
                .get(i)
                .copied()
                .flatten()
                .map(|_| ViewMut::new(t.dtype(), t.dims(), bytes))
        })
        .collect();
    let mut inputs: Vec<_> = x
        .iter()
        .zip(&held)
        .map(|(x, m)| {
            let (x, m) = (x.as_ref()?, m.as_ref()?);
            Some(View::new(x.dtype(), x.dims(), &m.bytes()[..x.bytes().len()]))
        })
        .collect();
    if let Some(i) = over {
        inputs[i] = inputs[i].map(|v| v.over(outputs[0].as_ref().unwrap()));
    }
    let mut scratch = Arena::new(kernel.scratch(threads));
    let pool = Pool::new(threads);
    let mut io = Io {
        inputs: &inputs,
        outputs: &mut outputs,
        scratch: scratch.bytes_mut(),
        pool: &pool,
    };
    kernel
        .run(&mut io)
        .unwrap_or_else(|e| panic!("{}: {e}", b.place()));
    like.iter()
        .zip(&memory)
        .map(|(t, m)| {
            let bytes = crate::ir::Bytes::new(m.bytes()[..t.bytes().len()].to_vec());
            Tensor::new(t.dtype(), t.dims().to_vec(), crate::ir::Data::Bytes(bytes)).unwrap()
        })
        .take(b.case.outputs)
        .collect()
}

fn aligned(t: &Tensor) -> Arena {
    let mut a = Arena::new(t.bytes().len());
    a.bytes_mut()[..t.bytes().len()].copy_from_slice(t.bytes());
    a
}

#[test]
fn kernels_agree_with_the_reference() {
    for b in benches() {
        let want = b.expected();
        if want.iter().any(|t| t.dtype() == DType::String) {
            continue;
        }
        let facts: Vec<_> = want.iter().map(Fact::of).collect();
        let packs = Packs::default();
        let build = |all: bool| b.op.cpu(&b.view(all).lowered(&facts, &packs));
        // Some kernels are only for inputs that are known.
        let usual: Vec<_> = build(false).into_iter().map(|c| c.name).collect();
        let others = build(true).into_iter().filter(|c| !usual.contains(&c.name));
        for c in build(false).into_iter().chain(others) {
            let (name, layout, kernel) = (c.name, c.layouts, (c.build)());
            let kernel = (&*kernel, layout);
            let got = run(&b, kernel, &want, 1, None);
            b.check(&name, &got, &want);
            let three = run(&b, kernel, &want, 3, None);
            for (a, b3) in got.iter().zip(&three) {
                assert_eq!(
                    a.bytes(),
                    b3.bytes(),
                    "{}, {name}: 1 and 3 threads differ",
                    b.place()
                );
            }
            for &slot in b.op.laws().in_place {
                let x = b.case.inputs.get(slot).and_then(Option::as_ref);
                if x.is_some_and(|x| (x.dtype(), x.dims()) == (want[0].dtype(), want[0].dims())) {
                    let over = run(&b, kernel, &want, 2, Some(slot));
                    b.check(&format!("{name} in place of input {slot}"), &over, &want);
                }
            }
        }
    }
}

#[test]
fn letters_of_products_count_multiply_adds() {
    for b in benches().filter(|b| ["Conv", "Gemm", "MatMul"].contains(&b.op.name().name)) {
        let (n, y) = (b.view(false), b.expected());
        let (x, w) = (
            b.case.inputs[0].as_ref().unwrap(),
            b.case.inputs[1].as_ref().unwrap(),
        );
        let summed: usize = match b.op.name().name {
            "Conv" => w.dims()[1..].iter().product(),
            "Gemm" if n.int_or("transA", 0) == Ok(1) => x.dims()[0],
            _ => x.dims()[x.dims().len() - 1],
        };
        let size = |t: &Tie| match (t.output, t.inputs.first()) {
            (Some(axis), _) => y[0].dims()[axis],
            (None, Some(&(i, axis))) => b.case.inputs[i].as_ref().unwrap().dims()[axis],
            _ => panic!("{}: a letter of nothing", b.place()),
        };
        let letters: usize = b.op.axes(&n).unwrap().0.iter().map(size).product();
        assert_eq!(letters, y[0].len() * summed, "{}", b.place());
    }
}
