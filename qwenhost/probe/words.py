"""Words for synthetic prompts: common ones, so that nearly each is one token for a large vocabulary."""

from __future__ import annotations

from typing import Final

_DETERMINERS = """
    the a this that each every another some any no one our your their its
"""

_ADJECTIVES = """
    large small new old good great long short high low early late full empty open closed public
    private common rare simple complex strong weak clear dark bright quick slow hard soft cold warm
    dry wet rich poor young free safe heavy light deep wide narrow sharp flat round broken careful
    central certain cheap clean correct daily direct distant double easy equal exact external fair
    famous final fine foreign formal former general global green happy hidden huge human ideal
    internal joint key known legal likely limited linear local loose major male mean minor mobile
    modern moral narrow national natural near normal northern odd only original other past perfect
    physical plain popular possible present previous prime proper pure quiet random ready real
    recent red regular remote right rough royal rural second secret separate serious several silent
    single social solid southern special stable standard steady strange strict sudden suitable sweet
    tall thick thin tight tiny total true typical unique upper urban useful usual vast visible vital
    western white whole wild wise wrong
"""

_NOUNS = """
    account action address age agent air animal answer area argument army art article attempt author
    back bank base basis battle bed bill bird blood board boat body book border bottle box branch
    bread bridge brother building business camera camp capital car card case cause cell center
    century chair change chapter charge check child church circle city claim class client clock code
    coffee college color company computer contract control copy corner cost council country couple
    course court cover credit crowd culture cup current customer cycle data date daughter day deal
    death debate decision degree demand design desk detail device dinner direction disease distance
    doctor dog door doubt dream drink driver earth east economy edge editor effect effort egg
    election energy engine engineer error evening event evidence example exchange exercise expert
    eye face fact factor failure family farm father feature field figure file film finger fire fish
    floor flower food foot force forest form frame friend fruit future game garden gas gate glass
    goal gold government ground group growth guide hall hand harbor head health heart heat hill
    history home horse hospital hotel hour house idea image income industry island issue item job
    journey judge key king kitchen knowledge lake land language law lawyer leader leaf lesson letter
    level library life light limit line list machine manager map mark market master matter meal
    measure meeting member memory message metal method middle mile mind minute mirror model moment
    money month moon morning mother motion mountain mouth movement museum music name nature network
    night noise note number object ocean office officer oil opinion order organ owner page pain
    paint painter paper parent park part party path patient pattern payment peace pen people period
    person phone picture piece place plan plane plant plate player poem poet point police pool port
    position power practice price principle prison problem process product profit program project
    promise proof property pump purpose quality quarter question race radio rain range rate reader
    reason record region report request research result return review rice ring risk river road rock
    role roof room root rule sailor sale salt sample scene school science sea season seat section
    sector seed sense series server service session shadow shape share ship shop side sign signal
    silence silver sister site size skill sky sleep snow society soil soldier solution son song
    sound source south space speaker speech speed spring square stage star state station step stone
    store storm story street strength structure student study style subject success sugar summer sun
    supply surface system table target task tax teacher team test text theory thing thought time
    title tool top topic total touch tower town trade train travel tree trial trip trouble truck
    trust truth type uncle union unit user value valley version victim video view village vision
    voice vote wall war watch water wave way weather week weight west wheel wife wind window wine
    winter woman wood word work worker world writer year youth zone
"""

_VERBS = """
    accepts adds allows answers asks avoids becomes begins believes breaks brings builds buys calls
    carries catches causes changes checks chooses closes collects compares considers contains
    controls covers creates crosses cuts decides describes designs discovers discusses draws drives
    drops enters examines expects explains faces fails feels fills finds finishes follows forgets
    gains gives handles hears helps hides holds hopes improves includes increases joins keeps knows
    leads learns leaves likes limits links lists lives loads loses loves makes manages marks
    measures meets misses mixes moves names needs notes offers opens orders owns passes pays plans
    plays points prefers prepares presents prevents produces promises proves pulls pushes puts
    raises reaches reads receives records reduces refuses remains removes repairs repeats replaces
    reports requires returns reveals reviews runs saves says searches sees sells sends serves sets
    shares shows signs solves sorts speaks spends starts stops stores studies suggests supports
    takes teaches tells tests thinks throws touches trades treats trusts turns understands uses
    visits wants warns watches wins works writes
"""

_JOINERS = """
    and but while because before after when although where since so until unless as though
"""

_PREPOSITIONS = """
    about above across after against along among around at before behind below beside between beyond
    by during for from in inside into near of off on outside over past through to toward under upon
    with within without
"""

DETERMINERS: Final = tuple(_DETERMINERS.split())
ADJECTIVES: Final = tuple(_ADJECTIVES.split())
NOUNS: Final = tuple(_NOUNS.split())
VERBS: Final = tuple(_VERBS.split())
JOINERS: Final = tuple(_JOINERS.split())
PREPOSITIONS: Final = tuple(_PREPOSITIONS.split())
