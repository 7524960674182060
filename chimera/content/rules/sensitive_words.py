"""The words of sensitive topics, and the phrases by which a text urges somebody."""

from __future__ import annotations

from typing import Final

from chimera.security.safety.findings import Severity
from chimera.security.safety.rules import Rule

_OFFICE = (
    "(president|presidency|presidential|prime minister|chancellor|senator|senators|congress|congressman|congresswoman"
    "|governor|parliament|lawmaker|lawmakers|politician|politicians|mp|mps)"
)
_PARTY = (
    "(democrat|democrats|republican|republicans|gop|labour party|tory|tories|conservative party|green party|liberals"
    "|libdems|liberal democrats|cdu|csu|spd|afd|fdp|bundnis 90|rassemblement national|la france insoumise|psoe|vox)"
)
_VOTED_FOR = (
    "(labour|conservative|conservatives|tory|tories|lib dem|lib dems|liberal|liberals|green|greens|democrat|democrats"
    "|republican|republicans|reform uk|ukip|snp|trump|biden|harris|vance|obama|clinton|sanders|desantis|newsom|starmer"
    "|sunak|badenoch|farage|le pen|bardella|macron|melenchon|zemmour|merz|scholz|weidel|habeck|wagenknecht|meloni"
    "|salvini|sanchez|abascal|feijoo|orban|modi|bolsonaro|lula|milei|afd|cdu|csu|spd|fdp|vox|psoe)"
)
_MEDICINE = (
    "(vaccine|vaccines|vaccination|vaccinations|vaccinated|antibiotic|antibiotics|antidepressant|antidepressants|insulin"
    "|chemotherapy|statin|statins|ozempic|ivermectin|paracetamol|ibuprofen|opioid|opioids|medication|medications"
    "|supplement|supplements|diet pills|detox|homeopathy|chemo|meds|jabs|radiotherapy|antipsychotics|blood thinners)"
)
_ASSET = (
    "(bitcoin|ethereum|crypto|cryptocurrency|cryptocurrencies|stocks|etf|etfs|index fund|index funds|penny stock"
    "|penny stocks|forex|nft|nfts|dogecoin|altcoin|altcoins|futures contract|hedge fund|government bonds)"
)

TOPICS: Final[tuple[Rule, ...]] = (
    Rule(
        id="sensitive.political",
        severity=Severity.REVIEW,
        advice="politics",
        any=(
            "(election|elections|electoral|referendum|ballot|ballots|midterms|plebiscite|voter|voters|candidacy)",
            _OFFICE,
            _PARTY,
            "(abortion|immigration|gun control|gun rights|border policy|tax reform|minimum wage|death penalty)",
            "(vote|voting|votez|votons|wahlt|vota|votad|voten|votate)",
            "(wahl|wahlen|bundestag|bundeskanzler|landtag|partei|volksabstimmung|wahler)",
            "(elections|scrutin|assemblee nationale|depute|deputes|elecciones|votantes|diputado|diputados)",
        ),
        unless=(
            "president of <2> (club|company|association|university|board)",
            "(vice president|president) of (sales|engineering|marketing|product)",
            "(vote|voting) <5> (favourite|favourites|favorite|favorites|logo|name|colour|color|flavour|flavor|song"
            "|photo|picture|recipe|cake|film|book|winner|prize)",
        ),
    ),
    Rule(
        id="sensitive.health",
        severity=Severity.REVIEW,
        advice="health",
        any=(
            _MEDICINE,
            "(cancer|diabetes|covid|influenza|flu|measles|depression|anxiety disorder|dementia|alzheimers|alzheimer"
            "|heart disease|obesity|asthma|hiv|pregnancy|miscarriage|blood pressure|cholesterol)",
            "(symptom|symptoms|diagnosis|prescription*|side effects|dosage|clinical trial|clinical trials)",
            "(impfung|impfungen|impfen|impft|geimpft|chimio|krebs|medikament|medikamente|vaccin|vacuna|vacunas|medicamento)",
        ),
        unless=(
            "(great|economic|tropical) depression",
            "cholesterol free",
            "supplement to",
            "(tropic of|zodiac|the sign of) cancer",
        ),
    ),
    Rule(
        id="sensitive.finance",
        severity=Severity.REVIEW,
        advice="finance",
        any=(
            _ASSET,
            "(invest|investing|investment|investments|investor|investors|mortgage|mortgages|payday loan|personal loan)",
            "(stock|share|bond|bonds) (market|markets|price|prices|exchange|portfolio|index)",
            "shares (of|in) <2> (rose|fell|jumped|dropped|surged|closed|trade|traded|slid)",
            "(trading|retirement|pension|savings|dividend) (strategy|account|fund|funds|plan|plans|yield|tips)",
            "(put|pour|stick|move) <2> money (in|into)",
            "(it|this|price|value|stake) will <1> (double|triple|quadruple|moon|skyrocket|explode) <2>"
            " (by|in|within|before)",
            "(send|deposit|wire|transfer) <2> (euros|euro|dollars|pounds|francs|usdt|btc)",
            "(aktie|aktien|geldanlage|rendite|bourse|acciones|inversion|inversiones)",
        ),
        unless=(
            "invest* <2> (time|effort|energy|love|minute|minutes|hour|hours|morning|afternoon|evening|day|weekend)",
            "investment of (time|effort)",
            "share (price|prices) for <3> (box|boxes|garden|farm|harvest|vegetables)",
        ),
    ),
)

PUSHES: Final[tuple[Rule, ...]] = (
    Rule(
        id="persuasion.political",
        severity=Severity.BLOCK,
        advice="no persuasion on politics",
        any=(
            f"(vote|voting|votes) <1> (for|against|out|him|her|them) <5> {_OFFICE}",
            f"(vote|voting|votes) (for|against|out|with) <3> {_PARTY}",
            "(vote|votes|voting) <1> (yes|no|leave|remain) on <3> (referendum|proposition|proposal|measure|amendment)",
            "(vote|votes) (for|against) <4> (on|this|next|in the) <2> (election|elections|november|tuesday|referendum)",
            "(elect|reelect|re elect|impeach|unseat|oust) <3> (president|senator|governor|mayor|candidate|him|her)",
            f"(support|back|join|defeat|reject|oppose|stop|trust|donate to|stand with|stand up to) <3> {_PARTY}",
            f"(support|back|defeat|reject|oppose|stop|donate to|stand with) <3> {_OFFICE}",
            "(support|oppose|reject|repeal|defend|ban|end|stop|legalize|abolish) <2> (abortion|immigration|gun control"
            "|gun rights|death penalty|tax reform)",
            "(call|tell|write to|email) (your|our) <1> (senator|senators|representative|congressman|congresswoman|mp)",
            "(vote|voting|votes) (for|against|out) <1> (mayor|councillor|councilman|councilwoman|sheriff|judge)",
            "(must|should|need to|have to|ought to) <1> vote (for|against)",
            "(do not|never|dont) (vote|go to the polls|bother voting)",
            "stay (home|at home) (on|this) <2> (election day|election|tuesday|polling day)",
            f"(only|best|right) (candidate|party|choice) <4> (election|country|nation|{_OFFICE[1:-1]})",
            f"(vote|voting|votez|votons|wahlt|wahlen sie|vota|votad|voten|votate) <1> {_VOTED_FOR}",
            "(wahlt|wahlen sie|votez|vota|votad) <2> (afd|cdu|csu|spd|fdp|die grunen|partei|pour|por|contre|contra)",
        ),
    ),
    Rule(
        id="persuasion.health",
        severity=Severity.BLOCK,
        advice="no persuasion on health",
        any=(
            f"(take|try|buy|order|start|stop|skip|avoid|refuse|quit|ditch|get|demand) <3> {_MEDICINE} <1>"
            " (today|now|before|instead|it|again|immediately|and)",
            f"(drop|quit|bin|dump|forget|give up|come off|get off|throw away|replace)"
            f" (your|the|all|that|any) <2> {_MEDICINE}",
            "(impft|lasst) <4> (nicht|nie|niemals|kein|keine)",
            "(arretez|refusez|deja|dejen|rechaza|setzt) <2> (chimio|vaccin|vaccins|traitement|medicaments|vacuna"
            "|vacunas|quimioterapia|medikamente)",
            "(ne vaccinez|ne vous vaccinez|no vacunes|no vacunen|no te vacunes)",
            f"(stop|skip|refuse|ditch|do not take|never take|do not trust|say no to|avoid) <3> {_MEDICINE}",
            f"(should|must|need to|ought to|have to) <1> (take|try|stop|skip|avoid|refuse|buy) <2> {_MEDICINE}",
            "(doctors|big pharma|pharma|they) (do not|never) want you to know",
            f"(better|safer) than (any|all|your)? <1> {_MEDICINE}",
            "(get|getting) (vaccinated|your jab|jabbed) <2> (today|now|before it)",
            "(i|we) (healed|cured|reversed) (my|our) <2> (cancer|diabetes|depression|asthma|obesity)",
        ),
    ),
    Rule(
        id="persuasion.finance",
        severity=Severity.BLOCK,
        advice="no persuasion on finance",
        any=(
            f"(buy|sell|short|hodl|hold|load up on|invest in|get into|dump|stack|ape into) <3> {_ASSET}",
            "(time|moment|chance|opportunity) to (buy|sell|invest|get in|load up)",
            "(should|must|need to|ought to|have to) <1> (invest|buy|sell) <3> (stocks|shares|bitcoin|crypto|now|in)",
            f"{_ASSET} (is|are) <2> (going|headed|set) to <2> (moon|explode|skyrocket|double|triple)",
            f"(put|move) <2> (money|savings|pension) (in|into) <2> {_ASSET}",
            "(put|pour|stick|move|sink) <2> (savings|pension|nest egg|inheritance) (in|into)",
            "guaranteed <2> (return|returns|profit|profits|yield|yields|gain|gains|income)",
            "guaranteed <2> (a|per|each|every) (day|week|month|year) <4> (fund|funds|plan|scheme|capital)",
            "(price target|to the moon|next big coin|cannot go wrong with) <3> (buy|invest|stock|crypto|coin)",
        ),
        unless=("(not|nor|no) <2> (advice|recommendation) to (buy|sell)",),
    ),
)

URGES: Final[tuple[Rule, ...]] = (
    Rule(
        id="urge",
        severity=Severity.REVIEW,
        advice="this urges somebody",
        any=(
            "(you|we|everyone|everybody|americans|citizens|parents|all of us) (must|should|need to|have to|ought to)",
            "(do not|dont|never) (let|miss|wait|trust|believe|fall for|be fooled)",
            "(join|spread) <1> (us|fight|movement|word|truth|resistance)",
            "(act|buy|order|invest|share|repost|donate|sign up|enroll) (now|today|before)",
            "(share|repost|retweet) this",
            "before (it is|its) too late",
            "(wake up|stand up|rise up|fight back|speak up|take back)",
            "make (the|your) (right|smart) (choice|decision)",
            "(it is|its|now is the) time to",
            "(enough is enough|make your voice heard|hold them accountable)",
            "(best|only|safest) (decision|choice|option|way) (you|for you|for your)",
            "(imagine|think about) what <3> (do|does) to your",
            "(du musst|sie sollten|wir mussen|il faut|debes|debemos|tienes que)",
        ),
    ),
)
