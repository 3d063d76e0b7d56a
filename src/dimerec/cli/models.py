"""`dimerec models`: what can be trained."""

from dimerec.cli import output
from dimerec.cli.output import Json


def models(json: Json = False) -> None:
    """List the models, and the recipes that train takes with --config.

    A recipe is a TOML file: a model, its options and how it is trained. Every
    key can be changed with --set, and your own file can be given as a path.

      dimerec models
      dimerec train data/ml --config sasrec --out runs/sasrec
    """
    from dimerec import config, plugins

    package = "dimerec.models"
    docs = {name: plugins.load(package, name).__doc__ or "" for name in plugins.names(package)}
    abouts = {name: docs[name].strip().partition("\n")[0] for name in docs}
    recipes = {name: config.load(name) for name in config.shipped()}
    if json:
        return output.document(
            {
                "models": [{"name": n, "about": about} for n, about in abouts.items()],
                "recipes": [
                    {"name": n, "model": r.model, "about": r.about} for n, r in recipes.items()
                ],
            }
        )
    output.table("Models", ("model", "about"), abouts.items())
    rows = [(name, recipe.model, recipe.about) for name, recipe in recipes.items()]
    output.table("Recipes (--config)", ("recipe", "model", "about"), rows)
