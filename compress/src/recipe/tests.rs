use super::*;

fn read(step: &str) -> Result<Recipe, String> {
    format!("[[step]]\n{step}").parse()
}

#[test]
fn a_recipe_comes_back_as_it_was_written() {
    let photos = Photos {
        mean: vec![0.485, 0.456, 0.406],
        std: vec![0.5],
        scale: Some(1.0),
        layout: Some("nhwc".into()),
    };
    let finetune = Finetune {
        data: "digits".into(),
        epochs: 3,
        lr: Some(1e-3),
        teacher: Some("self".into()),
        photos: Some(photos.clone()),
        ..Finetune::default()
    };
    let recover = Recover {
        data: "x.npz".into(),
        repairs: vec!["bn".into(), "bias".into()],
        samples: Some(64),
        photos: Some(photos.clone()),
    };
    let prune = Prune {
        pattern: Pattern::Most { keep: 2, of: 4 }.into(),
        keep: vec!["*head*".into()],
        photos: Some(photos),
        rounds: 3,
        schedule: Ramp::Linear,
        recover: Some(recover.clone()),
        finetune: Some(finetune.clone()),
        ..Prune::default()
    };
    let recipe = Recipe {
        seed: Some(7),
        step: vec![
            Step::Prune(prune.into()),
            Step::Recover(recover),
            Step::Finetune(finetune),
        ],
    };
    assert_eq!(recipe.toml().unwrap().parse::<Recipe>(), Ok(recipe.clone()));
    let large = Recipe {
        seed: Some(u64::MAX),
        ..recipe.clone()
    };
    assert_eq!(large.toml().unwrap().parse::<Recipe>(), Ok(large));
    let json = serde_json::to_string(&recipe).unwrap();
    assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), recipe);
}

#[test]
fn what_is_left_out_is_as_usual() {
    let recipe = read("prune = {}").unwrap();
    let Some(Step::Prune(prune)) = recipe.step.first() else {
        panic!("{recipe:?}");
    };
    assert_eq!(**prune, Prune::default());
    assert_eq!(prune.goal(Pattern::default()).amount, Amount::Sparsity(0.5));
    let Ok([Step::Prune(prune)]) =
        read("prune = {pattern = '1:4'}").map(|r| <[Step; 1]>::try_from(r.step).unwrap())
    else {
        panic!();
    };
    let share = |prune: &Prune| match prune.aim() {
        Aim::Zeros(goal) => goal.amount,
        Aim::Cuts(trim) => Amount::Sparsity(trim.share),
    };
    assert_eq!(share(&prune), Amount::Sparsity(0.75));
}

#[test]
fn what_is_wrong_is_said() {
    for (step, part) in [
        ("prune = {method = 'magic'}", "step 1: no method \"magic\""),
        ("prune = {sparsty = 0.5}", "sparsty"),
        ("prune = {pattern = '2:5'}", "no pattern \"2:5\""),
        ("prune = {schedule = 'cubik'}", "did you mean \"cubic\"?"),
        ("prune = {rounds = 0}", "at least one round"),
        ("prune = {rounds = 2, schedule = 'one-shot'}", "takes one round"),
        ("prune = {sparsity = 0.5, threshold = 1.0}", "found both"),
        ("recover = {data = 'd', repairs = ['bm']}", "no repair \"bm\""),
        ("recover = {data = 'd', repairs = []}", "no repairs are named"),
        (
            "recover = {data = 'd', repairs = ['weights']}",
            "this one only recovers",
        ),
        (
            "prune = {recover = {data = 'd', repairs = ['weights']}}",
            "pattern unstructured makes zeros",
        ),
        ("finetune = {epochs = 1}", "data"),
        ("quantise = {}", "quantise"),
        ("prune = {photos = {std = [0.0]}}", "other numbers than 0"),
        ("prune = {photos = {layout = 'hwc'}}", "nchw or nhwc"),
        (
            "recover = {data = 'd', repairs = ['bn'], photos = {scale = inf}}",
            "found inf",
        ),
        (
            "finetune = {data = 'd', epochs = 1, photos = {mean = [nan]}}",
            "found NaN",
        ),
    ] {
        let error = read(step).unwrap_err();
        assert!(error.contains(part), "{step}: {error}");
    }
    assert!("".parse::<Recipe>().unwrap_err().contains("no [[step]]"));
}

#[test]
fn what_is_left_out_follows_from_the_rest_as_flags_do() {
    let prune = |text: &str| match read(text).unwrap().step.remove(0) {
        Step::Prune(prune) => prune,
        other => panic!("{other:?}"),
    };
    assert_eq!(prune("prune = {method = 'sparsegpt'}").scope(), Scope::Layer);
    assert_eq!(prune("prune = {threshold = 0.01}").method(), "threshold");
    for (text, part) in [
        ("prune = {sparsity = 90.0}", "from 0 to 1"),
        (
            "finetune = {data = 'digits', epochs = 1, optimizer = 'adan'}",
            "adan",
        ),
        (
            "prune = {finetune = {data = 'digits', epochs = 1, lr_schedule = 'cosin:3'}}",
            "cosin",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_cuts_away_is_a_step_like_any_other() {
    let text = "prune = {pattern = 'structured', sparsity = 0.4, of = 'macs', round_to = 8, rounds = 3}";
    let recipe = read(text).unwrap();
    assert_eq!(recipe.toml().unwrap().parse(), Ok(recipe.clone()));
    let Some(Step::Prune(prune)) = recipe.step.first() else {
        panic!("{recipe:?}");
    };
    let trim = Trim {
        piece: Piece::Structured,
        share: 0.4,
        of: Of::Macs,
        scope: Scope::Layer,
        round_to: 8,
        keep: vec![],
    };
    assert_eq!(prune.aim(), Aim::Cuts(trim));
    for (step, part) in [
        ("of = 'macs'", "pattern unstructured makes zeros"),
        ("pattern = '2:4', round_to = 8", "pattern 2:4 makes zeros"),
        ("pattern = 'channel', threshold = 0.1", "takes no threshold"),
        (
            "pattern = 'channel', include = ['x']",
            "takes no threshold and no include",
        ),
        ("pattern = 'channel', sparsity = 1.0", "leaves something"),
        ("pattern = 'channel', round_to = 0", "at least 1"),
        ("pattern = 'block', round_to = 8", "takes no round_to"),
        ("pattern = 'block', scope = 'layer'", "no scope"),
        ("pattern = 'block', of = 'channels'", "share of blocks"),
        ("pattern = 'channel', of = 'atoms'", "atoms"),
    ] {
        let error = read(&format!("prune = {{{step}}}")).unwrap_err();
        assert!(error.contains(part), "{step}: {error}");
    }
    assert!(read("prune = {pattern = 'block', of = 'macs'}").is_ok());
}

#[test]
fn photos_are_read_as_those_of_the_examples_that_are_seen() {
    let photos = |mean: f64| {
        Some(Photos {
            mean: vec![mean],
            ..Photos::default()
        })
    };
    let prune = |data: Option<&str>| Prune {
        data: data.map(str::to_owned),
        photos: photos(1.0),
        recover: Some(Recover {
            photos: photos(2.0),
            ..Recover::default()
        }),
        ..Prune::default()
    };
    assert_eq!(prune(Some("own")).photos(), photos(1.0).as_ref());
    assert_eq!(prune(None).photos(), photos(2.0).as_ref());
}
